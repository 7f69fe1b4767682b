"""Policy texts (YAML with marks) compiled for the core, with all diagnostics: pure."""
