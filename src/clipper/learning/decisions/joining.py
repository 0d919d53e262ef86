"""Joins a log's decisions with the feedback on them, in bounded memory for a log of any length.

Feedback may come hours after its decision, and may be in another worker's file. So all feedback is first written to a
temporary database on disk, by query, and looked up while the decisions are read.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from clipper.errors import Unavailable
from clipper.learning.decisions.reading import LogReader
from clipper.learning.decisions.records import Decision, Judgement, Setting

# Pages of the database in memory. The rest is in a temporary file, which is deleted with the connection.
_CACHE_KIB = 32 * 1024
# Every build of SQLite takes this many parameters in a statement.
_LOOKED_UP = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Judgement).decode

_CREATE = "CREATE TABLE feedback (query_id INTEGER PRIMARY KEY, time_s REAL, count INTEGER, judgement BLOB)"
# The latest feedback counts: it may correct an earlier one.
_INSERT = """
    INSERT INTO feedback VALUES (?, ?, 1, ?)
    ON CONFLICT (query_id) DO UPDATE SET
        count = count + 1,
        judgement = CASE WHEN excluded.time_s >= time_s THEN excluded.judgement ELSE judgement END,
        time_s = max(time_s, excluded.time_s)
"""


@dataclass(frozen=True, slots=True)
class Joined:
    """A decision with its feedback. ``judgement``: the latest feedback; None if there is none."""

    setting: Setting
    decision: Decision
    judgement: Judgement | None
    feedback_count: int


def joined(reader: LogReader) -> Iterator[Joined]:
    """Join decisions and feedback, in the order of the files. Raises Unavailable if log or temporary file fail."""
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
                    f"joining feedback takes a temporary file, and there is no room for it ({error}): "
                    "set TMPDIR to a folder with room"
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
