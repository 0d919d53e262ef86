"""The settings of versions, applications and servers, defined once for wire, registry, clients and commands."""
