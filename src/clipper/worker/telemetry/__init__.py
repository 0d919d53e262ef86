"""A worker's records of requests: request ids, the access log, the slow-query log, and spans."""
