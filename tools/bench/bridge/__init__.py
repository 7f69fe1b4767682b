"""What labels on a bridge cost: round trips, adding a port, changing a policy."""
