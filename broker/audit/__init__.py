"""The audit log as files: chained lines, signed checkpoints, segments; read and verified."""
