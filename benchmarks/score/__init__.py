"""Files scored, against the model's own ``predict`` over the same file; and queries beside a job."""
