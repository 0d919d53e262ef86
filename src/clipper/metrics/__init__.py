"""Prometheus text from what the workers tell, made at scrape time: counting costs a query nothing here."""
