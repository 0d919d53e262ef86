"""Tells the workers that share a ``SqliteStore`` which states have changed."""

import sqlite3
from collections.abc import Iterable, Set

from msgspec import msgpack

from clipper.learning.stores.gathered_reads import State
from clipper.learning.stores.store import TOLD_AT_ONCE

_STATES = msgpack.Decoder(list[tuple[str, str]])


def tell(database: sqlite3.Connection, states: Iterable[State], now_s: float) -> int:
    """Report a change of these states to other workers; return its revision."""
    revision = int(database.execute("UPDATE revision SET last = last + 1 RETURNING last").fetchone()[0])
    database.execute("INSERT INTO told VALUES (?, ?, ?)", (revision, now_s, msgpack.encode(list(states))))
    return revision


def changes(database: sqlite3.Connection, cursor: int, own: Set[int]) -> tuple[int, list[State]]:
    """Return the next cursor, and the states that other revisions than ``own`` have changed until then."""
    newest = int(database.execute("SELECT last FROM revision").fetchone()[0])
    if cursor == -1 or cursor >= newest:
        return newest, []
    last, told = cursor, dict[State, None]()
    found = database.execute("SELECT revision, states FROM told WHERE revision > ? ORDER BY revision", (cursor,))
    for revision, states in found:
        if revision != last + 1 or revision > newest or len(told) >= TOLD_AT_ONCE:
            break
        last = revision
        if revision not in own:
            told.update(dict.fromkeys(_STATES.decode(states)))
    return (last, list(told)) if last > cursor else _last_changes(database, cursor, newest)


def _last_changes(database: sqlite3.Connection, cursor: int, last: int) -> tuple[int, list[State]]:
    """Return the same if a revision is no longer in ``told``, because the reader was held up for long."""
    query = (
        "WITH RECURSIVE each (application) AS (SELECT min(application) FROM changes UNION ALL "
        "SELECT (SELECT min(application) FROM changes WHERE application > each.application) FROM each "
        "WHERE application NOT NULL) "
        "SELECT changes.application, coalesce(long_contexts.context, changes.context), revision "
        "FROM each CROSS JOIN changes INDEXED BY changes_of_application ON changes.application = each.application "
        "LEFT JOIN long_contexts ON long_contexts.application = changes.application AND key = changes.context "
        "WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3"
    )
    found = database.execute(query, (cursor, last, TOLD_AT_ONCE)).fetchall()
    if len(found) == TOLD_AT_ONCE:
        # All states of a revision or none: the rest is reported the next time.
        last = found[-1][2] - 1
    return last, [(application, context) for application, context, revision in found if revision <= last]
