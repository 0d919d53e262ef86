"""The requests that the rows on selection send."""

import itertools
import json
from pathlib import Path

import pytest

from benchmarks.rows.selection import INPUTS, PREDICTING, observations, throttled


def bodies(size: int, count: int) -> list[dict[str, object]]:
    requests = itertools.islice(observations("app", size), count)
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]


def test_single_observations_go_round() -> None:
    sent = bodies(1, INPUTS + 1)
    assert sent[0] == sent[-1] == {"input": [0.25, 2.0, 3.0, 4.0], "label": 0}
    assert len({str(body["input"]) for body in sent}) == INPUTS


def test_batches_hold_the_same_observations() -> None:
    batches = bodies(100, INPUTS // 100)
    flat = [part for batch in batches for part in batch["observations"]]  # type: ignore[attr-defined]
    assert flat == bodies(1, INPUTS)


@pytest.mark.parametrize(("per_s", "pause_ms"), [(1e6, 1), (25_600, 10), (25_000, 11)])
def test_pause_keeps_the_rate(tmp_path: Path, per_s: float, pause_ms: int) -> None:
    script = tmp_path / "all.lua"
    script.write_text("-- a script")
    text = throttled(script, tmp_path / "half.lua", per_s).read_text()
    assert text == f"-- a script\nfunction delay() return {pause_ms} end\n"
    assert PREDICTING / pause_ms * 1000 <= per_s or pause_ms == 1
