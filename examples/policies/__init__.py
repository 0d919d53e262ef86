"""Selection policies of one's own: what docs/policies.md explains."""
