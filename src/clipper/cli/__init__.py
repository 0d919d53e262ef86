"""The command line: one file per noun. Speaks HTTP only, except for starting the server's process."""
