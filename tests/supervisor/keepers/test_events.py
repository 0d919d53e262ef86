"""The event log and its file together; tests/supervisor/test_events.py has them in a server."""

from contextlib import closing
from pathlib import Path

import pytest

from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.history.events import EventFile, EventKeeper


def made(name: str) -> NewEvent:
    return NewEvent("key", f"key {name}", "the key is made")


def test_what_could_not_be_written_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "away" / "events.jsonl"
    with closing(EventKeeper(EventFile(path))) as events:
        events.record([made("a")])
        events.record([made("b"), made("c")])
        assert [one.subject for one in events.log.latest()] == ["key a", "key b", "key c"]
        (problem,) = events.problems()
        assert "events cannot be kept in" in problem and "No such file" in problem
        assert caplog.text.count("events cannot be kept in") == 1
        path.parent.mkdir()
        events.record([made("d")])
        assert events.problems() == []
    with closing(EventKeeper(EventFile(path))) as again:
        assert [(one.id, one.subject) for one in again.log.latest()] == [
            (1, "key a"),
            (2, "key b"),
            (3, "key c"),
            (4, "key d"),
        ]
        again.record([])
        again.record([made("e")])
        assert path.read_bytes().count(b"\n") == 5
