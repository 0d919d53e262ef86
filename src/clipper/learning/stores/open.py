"""Opens the store that an address names."""

from pathlib import Path

from clipper.base.known_ids import Known
from clipper.base.masking import without_password
from clipper.errors import InvalidArgument
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import Store


def open_store(address: str, home: Path | None = None) -> Store:
    """Open ``sqlite:PATH``, or, with its extra installed, ``redis://HOST:PORT/DB`` (and ``rediss://``, ``unix://``).

    ``home`` is the folder that remembers which store was known at an address in Redis; None if there is none. Raises
    InvalidArgument if the address is neither, is not valid, or the extra is not installed.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest))
    if scheme not in ("redis", "rediss", "unix"):
        raise InvalidArgument(
            f"store {without_password(address)!r} is not known: expected sqlite:PATH or redis://HOST:PORT/DB"
        )
    try:
        from clipper.learning.stores.redis import STORE_ID_NAME, RedisStore
    except ImportError as error:
        raise InvalidArgument("a Redis store needs the redis package: pip install 'clipper-serving[redis]'") from error
    try:
        return RedisStore(address, known=Known(None if home is None else home / STORE_ID_NAME))
    except ValueError as error:
        raise InvalidArgument(
            f"store {without_password(address)!r} is malformed: {error}; expected redis://HOST:PORT/DB"
        ) from error
