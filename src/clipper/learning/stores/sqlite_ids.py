"""Recognises feedback that is sent again: ``SqliteStore`` keeps the ids of feedback for a while."""

import sqlite3
from collections.abc import Iterable, Sequence

from clipper.learning.stores.sqlite_rows import Key, by_application, insert, key_of, select
from clipper.learning.stores.store import Observation

# An application's id, and the key of the feedback's id in rows.
_Id = tuple[str, Key]


def note_ids(database: sqlite3.Connection, observations: Sequence[Observation], now_s: float) -> list[bool]:
    """Store the ids that are not known; return which observations are new."""
    ids = [None if each.id is None else (each.application, key_of(each.id)) for each in observations]
    until_s: dict[_Id, float] = {}
    in_full: dict[_Id, _Id] = {}
    are_first: list[bool] = []
    for each, id_ in zip(observations, ids):
        are_first.append(id_ is None or id_ not in until_s)
        if id_ is not None:
            until_s.setdefault(id_, now_s + each.keep_s)
            if each.id is not None and each.id != id_[1]:
                in_full[each.application, each.id] = id_
    known = _known(database, until_s)
    if in_full:  # an earlier Clipper may have stored ids in full
        known |= {in_full[each] for each in _known(database, in_full)}
    rows = [(*id_, until) for id_, until in until_s.items() if id_ not in known]
    insert(database, "INSERT INTO seen_until VALUES {rows}", rows)
    return [is_first and id_ not in known for id_, is_first in zip(ids, are_first)]


def _known(database: sqlite3.Connection, ids: Iterable[_Id]) -> set[_Id]:
    query = "SELECT id FROM seen_until WHERE application = ? AND id IN"
    return {
        (application, id_)
        for application, some in by_application(ids).items()
        for (id_,) in select(database, query, application, some)
    }
