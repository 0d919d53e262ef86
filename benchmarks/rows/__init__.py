"""The rows of the table of floors: one module for each subject."""
