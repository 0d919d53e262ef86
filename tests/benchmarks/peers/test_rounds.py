"""The results of rounds and open loads."""

from pathlib import Path

import pytest

from benchmarks.peers import rounds
from benchmarks.peers.rounds import Round, alternate, middle, summary
from benchmarks.peers.running import Running
from benchmarks.peers.table import PEERS


def server(name: str) -> Running:
    return Running(name, PEERS["yardstick"], 1, "PEER_RUN=none", Path("none"), 0.0)


def test_servers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def closed(server: Running, connections: int, seconds: int) -> Round:
        asked.append(server.name)
        return Round(float(len(asked)), 1.0, 1.0, 0, 1.0)

    monkeypatch.setattr(rounds, "closed", closed)
    first, second = alternate([server("a"), server("b")], connections=1, rounds=3, seconds=1)
    assert "".join(asked) == "abbaab"
    assert [each.per_s for each in first] == [1.0, 4.0, 5.0]
    assert [each.per_s for each in second] == [2.0, 3.0, 6.0]


def test_the_middle_of_rounds() -> None:
    three = [Round(1.0, 5.0, 9.0, 1, 30.0), Round(3.0, 4.0, 8.0, 0, 10.0), Round(2.0, 6.0, 7.0, 2, 20.0)]
    assert middle(three) == Round(2.0, 5.0, 8.0, 3, 20.0)


def test_what_is_not_answered_took_longest() -> None:
    opened = summary([0.004, 0.001, 0.030], offered=4, rate_per_s=10.0, slo_ms=20.0, taken_s=1.0)
    assert (opened.in_time, opened.p50_ms, opened.p99_ms, opened.cpu_us) == (0.5, 30.0, None, 500_000.0)


def test_nothing_was_offered() -> None:
    opened = summary([], offered=0, rate_per_s=10.0, slo_ms=20.0, taken_s=0.0)
    assert (opened.in_time, opened.p50_ms, opened.p99_ms, opened.cpu_us) == (0.0, None, None, 0.0)
