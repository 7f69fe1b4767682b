"""What a process of ours may still do once it is set up: files, ports, calls, capabilities."""
