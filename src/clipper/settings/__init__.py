"""What a version and an application are, once for the wire, the registry, clients and the command line."""
