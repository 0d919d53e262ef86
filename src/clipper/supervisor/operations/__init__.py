"""What the management API has the server do."""
