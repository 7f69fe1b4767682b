"""xen-policy-broker: a label-based policy broker for Xen split drivers."""
