"""What another policy would have lost on a log's queries. Decides; reads no files."""
