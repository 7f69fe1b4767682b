"""The web console: pages, styles and modules as they are served; no Python of its own."""
