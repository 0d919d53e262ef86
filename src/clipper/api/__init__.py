"""The management API: the types of its requests and answers, its server, and the dashboard."""
