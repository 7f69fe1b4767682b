"""Labels, STE, Chinese Wall, compiled policy, channels, decisions, explanations: pure."""
