"""The dashboard: pages, styles and scripts that a browser loads from the management port. It is a client of its API."""
