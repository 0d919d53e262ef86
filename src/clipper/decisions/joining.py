"""Decisions of a log, each with the feedback that came on it, in bounded memory however long the log is.

Feedback comes after its decision, by up to hours, and may be in another worker's file. So all of it is put by query
into a temporary database on disk first, and looked up as the decisions are read.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from clipper.decisions.reading import LogReader
from clipper.decisions.records import Decision, Judgement, Setting
from clipper.errors import Unavailable

# Of the database's pages in memory; the rest is in its file, which goes with the connection.
_CACHE_KIB = 32 * 1024
# SQLite takes so many parameters in a statement in every build.
_LOOKED_UP = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Judgement).decode

_CREATE = "CREATE TABLE feedback (query_id INTEGER PRIMARY KEY, time_s REAL, count INTEGER, judgement BLOB)"
# The last that came is the one that counts: it may put an earlier one right.
_INSERT = """
    INSERT INTO feedback VALUES (?, ?, 1, ?)
    ON CONFLICT (query_id) DO UPDATE SET
        count = count + 1,
        judgement = CASE WHEN excluded.time_s >= time_s THEN excluded.judgement ELSE judgement END,
        time_s = max(time_s, excluded.time_s)
"""


@dataclass(frozen=True, slots=True)
class Joined:
    """A decision with what came of it.

    Attributes:
        judgement: the last feedback on it; None if none has come.
        feedback_count: how much has come.
    """

    setting: Setting
    decision: Decision
    judgement: Judgement | None
    feedback_count: int


def joined(reader: LogReader) -> Iterator[Joined]:
    """What ``reader`` reads, in the order of the files.

    Raises:
        Unavailable: the log cannot be read, or there is no room for the temporary database.
    """
    with contextlib.closing(sqlite3.connect("")) as database:
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(_CREATE)
        for piece in reader.judgements():
            rows = [(each.query_id, each.time_s, _encode(each)) for each in piece]
            try:
                database.executemany(_INSERT, rows)
            except sqlite3.OperationalError as error:
                raise Unavailable(
                    f"the feedback of the log takes a temporary file, and there is no room for it ({error}): "
                    "name a folder with room by TMPDIR"
                ) from error
        for decisions in reader.decisions():
            found = _look_up(database, [decision.query_id for _, decision in decisions])
            for setting, decision in decisions:
                judgement, count = found.get(decision.query_id, (None, 0))
                yield Joined(setting, decision, judgement, count)


def _look_up(database: sqlite3.Connection, ids: Sequence[int]) -> Mapping[int, tuple[Judgement, int]]:
    found: dict[int, tuple[Judgement, int]] = {}
    for start in range(0, len(ids), _LOOKED_UP):
        some = ids[start : start + _LOOKED_UP]
        marks = ",".join("?" * len(some))
        rows = database.execute(f"SELECT query_id, count, judgement FROM feedback WHERE query_id IN ({marks})", some)
        found.update((query_id, (_decode(judgement), count)) for query_id, count, judgement in rows)
    return found
