"""One file for each noun: HTTP in, a call of the port, JSON out. Routes contain no rules."""

from litestar.di import NamedDependency
from litestar.params import FromPath, SkipValidation

from clipper.management.operations import Operations

# The port is a Protocol, which the framework cannot check an instance against.
Port = NamedDependency[SkipValidation[Operations]]
Name = FromPath[str]
