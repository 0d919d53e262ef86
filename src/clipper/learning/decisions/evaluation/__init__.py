"""Estimates what another policy would have lost on a log's queries. It decides, and reads no files."""
