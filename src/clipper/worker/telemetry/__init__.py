"""What a worker records about requests: request ids, the access log, the slow-query log, and spans."""
