"""Which extras are installed."""

from importlib.util import find_spec


def has_grpc() -> bool:
    """Whether the library of the extra ``grpc`` is there; it is not imported."""
    return find_spec("ngh2") is not None
