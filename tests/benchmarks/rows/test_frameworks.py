import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from benchmarks.rows import in_process
from benchmarks.rows.frameworks import CASES, outcome


def test_the_overhead_is_the_median_rounds() -> None:
    case = next(case for case in CASES if case.floor is not None)
    told = outcome(case, [12.0, 10.5, 30.0], [100.0, 100.0, 50.0], [96.0, 90.0, 97.0], [100.0, 100.0, 100.0])
    # 12 ms - 10 ms, 10.5 - 10, 30 - 20.
    assert told.numbers["overhead_us"] == pytest.approx(2000)
    assert told.numbers["ratio"] == pytest.approx(0.96)
    assert told.passed
    assert not outcome(case, [12.0], [100.0], [94.0], [100.0]).passed


def test_a_loop_calls_the_model_with_as_many_rows_as_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(GaussianNB().fit([[0.0], [1.0]], [0, 1])))
    np.save(tmp_path / "inputs.npy", np.zeros((3, 1)))
    source = {"artifact": str(tmp_path), "loader": "file", "target": "model.pkl", "framework": "pickle"}
    monkeypatch.setattr(sys, "argv", ["in_process.py", json.dumps(source), str(tmp_path / "inputs.npy")])
    monkeypatch.setattr(sys, "stdin", io.StringIO("1 0.01\n8 0.01\n"))
    in_process.main()
    assert all(float(line) > 0 for line in capsys.readouterr().out.splitlines())
