"""Method table, local socket, client."""
