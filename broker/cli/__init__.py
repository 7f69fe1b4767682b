"""brokerctl: offline tools and the client of the RPC."""
