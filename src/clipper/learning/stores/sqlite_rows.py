"""The rows of ``SqliteStore``: how they name contexts and ids of feedback, and how many are read or written at once.

A state has a row for each of its numbers, and the row names the state's context. A row over a quarter of a page takes
another page of its own, so a context of 1,000 letters with twelve numbers took 66 KB. Instead of a long name, rows have
a digest of 16 bytes, and ``long_contexts`` has the text of a context once. A digest is a blob, which equals no text.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipper.learning.stores.gathered_reads import READ_AT_ONCE, State
from clipper.learning.stores.store import FLOAT

# A name in rows: the text, or the digest of a long one.
Key = str | bytes
N = TypeVar("N", str, Key)
# Most names are shorter: numbers, addresses, UUIDs. With a digest, the text takes a row of its own.
LONGEST_IN_FULL = 40

# The rows of a statement.
INSERTED_TOGETHER = 50

# Selects the texts of an application's contexts; statements continue it with an order.
TEXTS = (
    "SELECT coalesce(long_contexts.context, changes.context) FROM changes INDEXED BY changes_of_application "
    "LEFT JOIN long_contexts ON long_contexts.application = changes.application AND key = changes.context "
    "WHERE changes.application = ? AND changes.context != ?"
)


def key_of(name: str) -> Key:
    """Return the key of a context, or of an id of feedback, in rows."""
    return name if len(name) <= LONGEST_IN_FULL else blake2b(name.encode(), digest_size=16).digest()


def names_of(name: str) -> tuple[Key, ...]:
    """Return all keys that a name may have in rows: earlier Clippers wrote long names in full."""
    return (name,) if len(name) <= LONGEST_IN_FULL else (key_of(name), name)


def keep_texts(database: sqlite3.Connection, states: Iterable[State]) -> None:
    """Keep the texts of contexts that have digests. This must be in the transaction that adds to them."""
    texts = [(application, key_of(text), text) for application, text in states if len(text) > LONGEST_IN_FULL]
    insert(database, "INSERT OR IGNORE INTO long_contexts VALUES {rows}", texts)


def by_application(keys: Iterable[tuple[str, N]]) -> dict[str, list[N]]:
    found: dict[str, list[N]] = {}
    for application, name in keys:
        found.setdefault(application, []).append(name)
    return found


def select(
    database: sqlite3.Connection, query: str, application: str, names: Sequence[Key]
) -> Iterator[tuple[Any, ...]]:
    """Run a query that ends in ``IN``, for some names at a time."""
    for start in range(0, len(names), READ_AT_ONCE):
        some = list(names[start : start + READ_AT_ONCE])
        # Statements have few different lengths, since each is prepared once and kept. A repeated name does no harm.
        length = 1 if len(some) == 1 else READ_AT_ONCE
        padded = [*some, *some[-1:] * (length - len(some))]
        yield from database.execute(f"{query} ({', '.join('?' * length)})", (application, *padded))


def insert(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[Key | float, ...]]) -> None:
    """Insert rows, many in a statement: after each statement this thread may wait for the interpreter."""
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    many = len(rows) - len(rows) % INSERTED_TOGETHER
    together = statement.format(rows=", ".join([row] * INSERTED_TOGETHER))
    for start in range(0, many, INSERTED_TOGETHER):
        database.execute(together, list(chain.from_iterable(rows[start : start + INSERTED_TOGETHER])))
    database.executemany(statement.format(rows=row), rows[many:])


def add_array(database: sqlite3.Connection, key: tuple[str, Key, str], amounts: NDArray[np.float64]) -> None:
    """Add an array. It must be in a transaction, so that nobody else adds between reading and writing."""
    query = "SELECT amounts FROM arrays WHERE application = ? AND context = ? AND name = ?"
    known = database.execute(query, key).fetchone()
    total = amounts if known is None else np.frombuffer(known[0], FLOAT) + amounts
    database.execute("REPLACE INTO arrays VALUES (?, ?, ?, ?)", (*key, total.astype(FLOAT).tobytes()))


def delete_contexts(database: sqlite3.Connection, names: Sequence[tuple[str, Key]]) -> int:
    """Delete all rows of these contexts, each an application and a context's key; return how many there were."""
    for table in ("sums", "arrays"):
        database.executemany(f"DELETE FROM {table} WHERE application = ? AND context = ?", names)
    database.executemany("DELETE FROM long_contexts WHERE application = ? AND key = ?", names)
    return database.executemany("DELETE FROM changes WHERE application = ? AND context = ?", names).rowcount
