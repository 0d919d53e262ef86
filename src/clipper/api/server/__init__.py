"""The server of the management API on port 1338. Operators, the CLI and the dashboard call it."""
