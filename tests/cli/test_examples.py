"""The lines that commands print for a user to paste."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.commands.serve import curl_line, name_of
from clipper.values.types import check_name
from tests.waiting import TIMEOUT_S


@pytest.mark.parametrize(
    ("input_type", "value"),
    [
        ("float64[4]", [0.0] * 4),
        ("int32[*]", [0, 0, 0]),
        ("float32[2,2]", [[0.0, 0.0], [0.0, 0.0]]),
        ("float64[]", 0.0),
        ("bool[1]", [False]),
        ("string", "some text"),
        ("bytes", "AAEC"),
    ],
)
def test_a_small_input_is_written_out(input_type: str, value: object) -> None:
    words = shlex.split(curl_line("http://h:1", "app", input_type))
    assert words[:3] == ["curl", "http://h:1/app/predict", "-d"]
    assert json.loads(words[3]) == {"input": value}


def test_a_certificate_is_named() -> None:
    words = shlex.split(curl_line("https://h:1", "app", "float64[1]", Path("/my home/certificate.pem")))
    assert words[:4] == ["curl", "--cacert", "/my home/certificate.pem", "https://h:1/app/predict"]


@pytest.mark.parametrize(("input_type", "value"), [("float64[784]", [0.0] * 784), ("uint8[28,28]", [[0] * 28] * 28)])
def test_a_large_input_is_made_by_the_line(input_type: str, value: object) -> None:
    line = curl_line("http://h:1", "app", input_type)
    assert len(line) < 150
    program, curl = line.split(" | ")
    assert curl == "curl http://h:1/app/predict -d @-"
    words = shlex.split(program)
    assert words[0] == "python3"
    made = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=True, timeout=TIMEOUT_S)
    assert json.loads(made.stdout) == {"input": value}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("digits.joblib", "digits"),
        ("some/folder/My Model (2).pkl", "my-model-2"),
        ("package.module:Class", "module"),
        ("__.pkl", "model"),
        ("x" * 80 + ".pkl", "x" * 63),
        ("a" * 62 + "-b.pkl", "a" * 62),
    ],
)
def test_names_from_models(model: str, name: str) -> None:
    assert check_name("model", name_of(model)) == name


@given(st.text(min_size=1))
def test_any_model_gives_a_valid_name(model: str) -> None:
    name = name_of(model)
    assert check_name("model", name) == name
