"""docs/python.md: its two examples, run against a server that has the application that they ask."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from clipper import Clipper
from tests.docs.pages import ROOT, Reader, blocks


@pytest.mark.long
def test_both_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one, many = [block for block in blocks(ROOT / "docs" / "python.md") if block.language == "python"]
    reader = Reader(tmp_path)
    reader.run("clipper start")
    try:
        home = tmp_path / ".clipper"
        monkeypatch.setenv("CLIPPER_HOME", str(home))
        with Clipper.connect() as clipper:
            clipper.deploy("digits", lambda images: [int(image.sum()) for image in images], input_type="float32[784]")
            clipper.create_application("digits", model="digits", slo_ms=20_000)
        exec(compile(one.text, one.place, "exec"), {})
        assert capsys.readouterr().out == "0 False 1.0\n"
        names: dict[str, object] = {}
        exec(compile(many.text, many.place, "exec"), names)
        answers = asyncio.run(names["main"](np.eye(3, 784, dtype=np.float32) * 5))  # type: ignore[operator]
        assert answers == [5, 5, 5]
    finally:
        reader.run("clipper stop")
