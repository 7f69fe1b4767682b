"""What the tests stand on: real stores without Xen, guests, and a blocking client."""
