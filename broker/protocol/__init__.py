"""Protocol descriptions: load and check: pure."""
