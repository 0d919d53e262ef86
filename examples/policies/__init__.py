"""Selection policies of one's own: what docs/own-policies.md explains."""
