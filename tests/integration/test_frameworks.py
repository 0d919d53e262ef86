"""Saved models of frameworks that Clipper's own Python does not have: deployed, asked over HTTP, shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper import Clipper
from clipper.errors import ContainerFailed
from scripts.real_models import requirements
from tests.model.frameworks.framework_cases import FIRST_RUN, made_models
from tests.supervisor.live_server import Server

pytestmark = [FIRST_RUN, pytest.mark.long]

# Building the environment is part of it the first time.
START_S = 200.0
MAGIKA = ("magika==1.0.3", "silero-vad==6.2.3")


@pytest.fixture(scope="module")
def clipper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clipper]:
    server = Server(tmp_path_factory.mktemp("frameworks") / "home").start()
    try:
        with Clipper.connect(home=server.home) as connected:
            yield connected
        assert server.stop() == 0
    finally:
        server.clean_up()


def case_of(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "cases.json").read_text())[name])


def test_a_folder_of_onnx_answers_its_labels(clipper: Clipper) -> None:
    folder = made_models("onnx", MAGIKA)
    case = case_of(folder, "magika labels")
    version = clipper.deploy(
        "magika",
        folder / case["target"],
        output=case["output"],
        requirements=requirements("onnx"),
        start_timeout_s=START_S,
    )
    assert (version.input_type, "onnxruntime 1.32.0" in version.runtime) == ("int32[2048]", True)
    clipper.create_application("magika", model="magika", slo_ms=20_000)
    assert [clipper.predict("magika", row).output for row in case["inputs"]] == case["expected"]


def test_a_missing_output_fails_the_deployment_naming_those_there_are(clipper: Clipper) -> None:
    folder = made_models("onnx", MAGIKA)
    with pytest.raises(ContainerFailed, match=r"array\.onnx has no output logits: it has label, probabilities, labels"):
        clipper.deploy(
            "digits",
            folder / "array.onnx",
            output="logits",
            requirements=requirements("onnx"),
            start_timeout_s=START_S,
        )


def test_a_booster_answers_probabilities(clipper: Clipper) -> None:
    folder = made_models("xgboost")
    case = case_of(folder, "binary probabilities")
    version = clipper.deploy(
        "tumour",
        folder / case["target"],
        output=case["output"],
        requirements=requirements("xgboost"),
        start_timeout_s=START_S,
    )
    assert (version.input_type, "xgboost 3.2.0" in version.runtime) == ("float32[30]", True)
    clipper.create_application("tumour", model="tumour", slo_ms=20_000)
    assert [clipper.predict("tumour", row).output for row in case["inputs"]] == case["expected"]
