"""brokerd: mirror, reconcile, publish, labels, audit, reload."""
