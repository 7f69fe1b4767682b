"""Filter profiles for vifs: the language, its evaluator, its checks. Pure (docs/filters.md)."""
