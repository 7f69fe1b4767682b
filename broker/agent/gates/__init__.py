"""What opens and closes a channel in the backend's own kernel."""
