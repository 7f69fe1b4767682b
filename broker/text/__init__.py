"""Texts and their problems: YAML with marks, escaping, file:line:column: pure."""
