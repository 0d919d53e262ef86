"""The query port: HTTP/1.1 requests to queries, and their answers. It makes no decisions about queries."""
