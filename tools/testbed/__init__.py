"""The real-Xen test bed: `make e2e` boots Xen and dom0 in QEMU and runs scenarios there."""
