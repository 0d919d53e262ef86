"""The open-loop load generator of ``clipper load``."""
