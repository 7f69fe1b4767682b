"""Labels on bridges: nftables."""
