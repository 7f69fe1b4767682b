"""What the service manager and its journal are told, and what they hand over."""
