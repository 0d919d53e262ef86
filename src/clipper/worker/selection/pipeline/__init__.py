"""Pipelines: applications whose answers are made from the answers of other applications."""
