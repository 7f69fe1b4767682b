"""Manual pages, made from the command lines, the configuration files and their comments."""
