"""Clipper: an online prediction-serving system.

``Clipper.connect()``, or ``AsyncClipper.connect()`` on an event loop, talks to a running server. By ``ask`` a model
asks an application of the server that it runs on. Nothing is imported until it is used, so that a model container,
which shares this package, needs none of the server's libraries.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper.client import AsyncClipper, Clipper
    from clipper.model.runtime.asking import ask

__version__ = "1.0.0"
__all__ = ["AsyncClipper", "Clipper", "__version__", "ask"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClipper", "Clipper"):
        import clipper.client

        return getattr(clipper.client, name)
    if name == "ask":
        from clipper.model.runtime.asking import ask

        return ask
    raise AttributeError(f"module 'clipper' has no attribute {name!r}")
