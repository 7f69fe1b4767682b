"""xen-policy-broker: a label-based policy broker for Xen split drivers."""

VERSION = "0.1.0"
"""The program's; setup.cfg takes it from here."""
