"""broker-agent: gates, records, dom0's helper."""
