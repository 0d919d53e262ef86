"""docs/moving.md: the classes that it shows are models."""

import subprocess
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.svm import SVC

from scripts.real_models import environment
from tests.docs.pages import ROOT, blocks
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.long

PAGE = ROOT / "docs" / "moving.md"
TOTALS, HANDLER, SERVICE = [block for block in blocks(PAGE) if block.language == "python"]


def names(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(text, "moving.md", "exec"), found)
    return found


def test_totals_answers_a_batch() -> None:
    assert names(TOTALS.text)["Totals"](None).predict_batch(np.ones((2, 3))).tolist() == [3.0, 3.0]


def test_the_class_that_a_service_becomes_answers_as_the_model_does(tmp_path: Path) -> None:
    rows, labels = np.eye(4, 64), np.arange(4)
    model = SVC().fit(rows, labels)
    joblib.dump(model, tmp_path / "svm.joblib")
    found = names(SERVICE.text)["Digits"]
    assert found.input_type == "float64[64]"
    assert found(str(tmp_path / "svm.joblib")).predict_batch(rows).tolist() == model.predict(rows).tolist()


# This follows the class, in the environment that has PyTorch: a net that answers its input, saved as the page says.
ASK = """
import sys
import numpy as np

torch.jit.script(torch.nn.Identity()).save(sys.argv[1])
print(Digits(sys.argv[1]).predict_batch(np.eye(3, 784, dtype=np.float32)).tolist())
"""


def test_the_class_that_a_handler_becomes_answers_a_batch(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(HANDLER.text + ASK)
    command = [environment("torch"), "handler.py", "net.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.stdout, done.returncode) == ("[0, 1, 2]\n", 0), done.stderr
