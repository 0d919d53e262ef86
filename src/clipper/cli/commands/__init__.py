"""The subcommands of clipper: one file for each noun."""
