"""Domains simulated for the demo and for load."""
