"""Which store an address means."""

from pathlib import Path

from clipper.errors import InvalidArgument
from clipper.selection.stores.sqlite import SqliteStore
from clipper.selection.stores.store import Store


def open_store(address: str) -> Store:
    """``sqlite:PATH``, or ``redis://HOST:PORT/DB`` (and ``rediss://``, ``unix://``) with the extra for it installed.

    Raises:
        InvalidArgument: it is neither, is malformed, or the extra is not installed.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest))
    if scheme not in ("redis", "rediss", "unix"):
        raise InvalidArgument(f"store {address!r} is not known: expected sqlite:PATH or redis://HOST:PORT/DB")
    try:
        from clipper.selection.stores.redis import RedisStore
    except ImportError as error:
        raise InvalidArgument("a Redis store needs the redis package: pip install 'clipper-serving[redis]'") from error
    try:
        return RedisStore(address)
    except ValueError as error:
        raise InvalidArgument(f"store {address!r} is malformed: {error}; expected redis://HOST:PORT/DB") from error
