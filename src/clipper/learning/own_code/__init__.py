"""Users' own policies and losses: tried in a bounded process first, then run under a watch."""
