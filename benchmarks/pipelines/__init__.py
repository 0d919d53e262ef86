"""Pipelines under load that does not wait, beside the best fixed split of their SLO."""
