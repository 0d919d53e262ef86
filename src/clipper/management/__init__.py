"""The management API on 1338: what operators and the CLI talk to."""
