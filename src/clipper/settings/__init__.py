"""The settings of a version, an application and a server, defined once for wire, registry, clients and commands."""
