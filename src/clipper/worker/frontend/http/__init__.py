"""The query port: reads HTTP/1.1 requests and writes their answers."""
