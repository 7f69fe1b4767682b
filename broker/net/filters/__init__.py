"""Filter profiles in the kernel: what a vif may send and receive, beyond which label it reaches."""
