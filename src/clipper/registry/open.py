"""Opens the registry that an address names."""

from clipper.errors import InvalidArgument
from clipper.registry.shared import Holder, Known, SharedRegistry


def open_shared(address: str, holder: Holder, known: Known | None = None) -> SharedRegistry:
    """Open ``redis://HOST:PORT/DB`` (or ``rediss://``, ``unix://``). Nothing is asked of it yet.

    Raises:
        InvalidArgument: the address is not one, or the extra is not installed.
    """
    scheme, _, rest = address.partition("://")
    # Messages go to logs, and the address may have a password.
    shown = f"{scheme}://{rest.rpartition('@')[2]}" if rest else address
    if scheme not in ("redis", "rediss", "unix") or not rest:
        raise InvalidArgument(f"registry {shown!r} is not known: expected redis://HOST:PORT/DB")
    try:
        from clipper.registry.redis import RedisRegistry
    except ImportError as error:
        raise InvalidArgument(
            "a registry in Redis needs the redis package: pip install 'clipper-serving[redis]'"
        ) from error
    try:
        return RedisRegistry(address, holder, known=known)
    except ValueError as error:
        raise InvalidArgument(f"registry {shown!r} is malformed: {error}; expected redis://HOST:PORT/DB") from error
