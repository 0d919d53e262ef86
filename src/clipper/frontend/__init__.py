"""The query front: HTTP/1.1 to queries and back. It holds no decisions about queries."""
