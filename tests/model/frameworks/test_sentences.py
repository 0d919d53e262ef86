"""A class of one's own that takes texts: the example ``sentences``, against sentence-transformers itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.real_models import exported
from tests.model.runtime.framework_desk import desk, near

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[3] / "examples" / "models" / "sentences.py"


def test_vectors_are_the_networks_own(tmp_path: Path) -> None:
    made = exported("sentence_network", "torch")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sentences.py").write_text(EXAMPLE.read_text())
    (tmp_path / "minilm").symlink_to(made / "minilm")
    sentences = json.loads((made / "inputs.json").read_text())
    with desk("torch") as process:
        asked = {"artifact": str(tmp_path), "loader": "import", "target": "sentences:Sentences", "data": "minilm"}
        model = process.load_artifact(asked)
        assert model.input_type == "string"
        vectors = model.predict(sentences)
    assert near(vectors, np.load(made / "answers.npy"), 1e-4)
    alike, other = np.dot(vectors[0], vectors[1]), np.dot(vectors[0], vectors[2])
    assert alike > 0.6 > 0.3 > other
