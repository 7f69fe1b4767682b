"""Paths, wire codec, Twisted client, embedded store."""
