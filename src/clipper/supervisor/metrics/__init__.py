"""Prometheus text from the workers' statistics. It is made at scrape time, so no query pays for it."""
