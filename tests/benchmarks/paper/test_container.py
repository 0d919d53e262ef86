"""Batches timed against a real container."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper import latency_profiles
from benchmarks.paper.container import BatchFailed, Container, encode_batch
from tests.model.runtime import caller

MODEL = """
def model(inputs):
    if inputs[0][0] == 7:
        raise ValueError("no sevens")
    return [0] * len(inputs)
"""


def test_batches_are_timed_and_one_that_fails_is_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with caller.running(tmp_path, *caller.code(tmp_path, MODEL), "--input-type", "float64[2]") as serving:
        path = serving.address.removeprefix("unix:")
        with closing(Container(path)) as container:
            assert container.predict_s(encode_batch(np.ones((3, 2))), 3) > 0
            with pytest.raises(BatchFailed):
                container.predict_s(encode_batch(np.full((2, 2), 7.0)), 2)
        for name, value in (("MAX_ROWS", 4), ("AT_LEAST", 5), ("AT_MOST", 5)):
            monkeypatch.setattr(latency_profiles, name, value)
        rows = latency_profiles.profile(path, np.ones((4, 2)))
    assert [(row["rows"], row["batches"]) for row in rows] == [(1, 5), (2, 5), (4, 5)]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
