"""What a worker tells of requests: request ids, the access log, the slow-query log, and spans."""
