"""Models of two releases of scikit-learn, of real digits, side by side in one Clipper.

The environment of the older release is built from the network the first time, and then found where environments are.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
import sklearn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from clipper.client import Clipper
from clipper.supervisor.managers.environments.builder import build_environment, environments_root
from clipper.supervisor.managers.environments.interpreters import find_interpreter
from clipper.supervisor.managers.environments.plan import Recipe
from tests.supervisor.live_server import Server

pytestmark = pytest.mark.long

OLDER = "1.5.2"
ASKED = 30

TRAIN = """
import json, sys
import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
rows, labels = load_digits(return_X_y=True)
model = LogisticRegression(max_iter=30).fit(rows / 16, labels)
joblib.dump(model, sys.argv[1])
print(json.dumps(model.predict(rows[:int(sys.argv[2])] / 16).tolist()))
"""


@pytest.fixture
def clipper(tmp_path: Path) -> Iterator[Clipper]:
    server = Server(tmp_path / "home").start()
    with Clipper.connect(home=server.home) as clipper:
        yield clipper
    server.clean_up()


def older_model(path: Path) -> list[int]:
    """Train and save one with the older release; return its answers to the first digits."""
    # The same as is worked out from the file, so that it is built once.
    recipe = Recipe(f"joblib\nscikit-learn=={OLDER}\n", find_interpreter(sys.executable))
    python = build_environment(recipe, environments_root(os.environ), print)
    # Environments hold no warnings' settings of ours: iterations are few on purpose.
    argv = [str(python), "-W", "ignore", "-c", TRAIN, str(path), str(ASKED)]
    answers: list[int] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return answers


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_of_two_releases_answer_side_by_side(clipper: Clipper, tmp_path: Path) -> None:
    rows, labels = load_digits(return_X_y=True)
    newer = LogisticRegression(max_iter=30).fit(rows / 16, labels)
    joblib.dump(newer, tmp_path / "newer.joblib")
    expected = {"older": older_model(tmp_path / "older.joblib"), "newer": newer.predict(rows[:ASKED] / 16).tolist()}
    for name in expected:
        clipper.deploy(name, tmp_path / f"{name}.joblib")
        clipper.create_application(name, model=name, slo_ms=20_000)
    runtimes = {name: clipper.version(name, "1").runtime for name in expected}
    assert f"scikit-learn {OLDER}" in runtimes["older"] and "saved with" not in runtimes["older"]
    assert f"scikit-learn {sklearn.__version__}" in runtimes["newer"]
    for name, answers in expected.items():
        assert [one.output for one in clipper.predict_batch(name, (rows[:ASKED] / 16).tolist())] == answers

    # In Clipper's own Python, which is named, it is of another release than it was saved with.
    told = clipper.deploy("older", tmp_path / "older.joblib", python=sys.executable)
    assert told.warning is not None
    assert f"saved with scikit-learn {OLDER} but runs with {sklearn.__version__}" in told.warning
    assert clipper.version("older", "1").warning is None
