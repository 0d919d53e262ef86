"""Clipper: an online prediction-serving system.

``Clipper.connect()``, or ``AsyncClipper.connect()`` on an event loop, talks to a running server. Nothing is imported
until it is used, so that a model container, which shares this package, needs none of the server's libraries.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper.client import AsyncClipper, Clipper

__version__ = "0.1.0"
__all__ = ["AsyncClipper", "Clipper", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClipper", "Clipper"):
        import clipper.client

        return getattr(clipper.client, name)
    raise AttributeError(f"module 'clipper' has no attribute {name!r}")
