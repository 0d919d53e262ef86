"""The Python client: deploys models to a running server and asks it for predictions, over its two HTTP APIs.

    clipper = Clipper.connect()
    clipper.deploy("digits", fitted_estimator)
    clipper.create_application("digits", model="digits", slo_ms=20, default_output=0)
    clipper.predict("digits", [0.0] * 784).output

    async with await AsyncClipper.connect() as clipper:
        await clipper.predict("digits", [0.0] * 784)

Every method may raise a ``ClipperError``: the one whose code the server answered, or ``Unavailable`` if no server
answers.
Every wait has a bound.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper.base.tls.trust import Trust
    from clipper.client.clipper import STOP_TIMEOUT_S, AsyncClipper, Clipper
    from clipper.client.query_calls import Observed, Prediction

__all__ = ["STOP_TIMEOUT_S", "AsyncClipper", "Clipper", "Observed", "Prediction", "Trust"]


def __getattr__(name: str) -> Any:
    """Import the clients when they are used: nodes of a Ray cluster use ``clipper.client.packaging`` without them."""
    if name in __all__:
        import clipper.client.clipper
        import clipper.client.query_calls

        part = clipper.client.query_calls if name in ("Observed", "Prediction") else clipper.client.clipper
        return getattr(part, name)
    raise AttributeError(f"module 'clipper.client' has no attribute {name!r}")
