"""Tells which extras are installed."""

from functools import partial
from importlib.util import find_spec


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


# These return whether an extra's library is installed, without importing it. Ray's extra also needs cryptography, to
# sign certificates.
has_cryptography = partial(_is_installed, "cryptography")
has_docker = partial(_is_installed, "docker")
has_otel = partial(_is_installed, "opentelemetry.proto")
has_ray = partial(_is_installed, "ray")


def has_grpc() -> bool:
    """Whether there is HTTP/2: by libnghttp2, or slower by h2."""
    return _is_installed("ngh2") or _is_installed("h2")
