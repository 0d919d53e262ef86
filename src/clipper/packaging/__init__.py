"""Turns a user's model (a file, an object or the name of some code) into an artifact that a container can load."""

from clipper.packaging.artifact import Artifact
from clipper.packaging.models import Language, package, package_code

__all__ = ["Artifact", "Language", "package", "package_code"]
