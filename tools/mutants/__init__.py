"""Every guard in the kernel's tables taken away, one at a time: a test must fail each time."""
