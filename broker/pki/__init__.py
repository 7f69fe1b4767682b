"""Certificates: who is who on the RPC, and the small authority that says so."""
