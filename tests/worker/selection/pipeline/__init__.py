"""The decisions of pipelines."""
