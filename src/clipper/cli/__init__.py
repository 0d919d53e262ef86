"""The command line: one file for each noun. It speaks HTTP only, except to start the server's process."""
