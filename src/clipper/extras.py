"""Which extras are installed."""

from importlib.util import find_spec


def has_otel() -> bool:
    """Whether the library of the extra ``otel`` is there; it is not imported."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def has_grpc() -> bool:
    """Whether the library of the extra ``grpc`` is there; it is not imported."""
    return find_spec("ngh2") is not None
