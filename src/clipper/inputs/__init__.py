"""From the JSON of one input to its row, whoever reads it: workers a query, the supervisor a sample."""
