"""Prometheus text from the workers' statistics, made at scrape time: no query pays for it."""
