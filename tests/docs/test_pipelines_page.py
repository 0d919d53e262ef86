"""The page of pipelines, followed with the example that it names."""

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reader, blocks, commands, normal, pattern

pytestmark = pytest.mark.long


def test_commands_of_the_page_answer_what_it_shows(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "pipelines", tmp_path / "examples" / "pipelines")
    # A loaded machine takes longer for a model's first answer.
    config = tmp_path / "examples" / "pipelines" / "clipper.yaml"
    config.write_text(config.read_text().replace("slo_ms: 500", "slo_ms: 20000"))
    reader, printed = Reader(tmp_path), {}
    try:
        for block in blocks(ROOT / "docs" / "pipelines.md"):
            if block.language == "sh":
                printed |= {command: reader.run(command) for command in commands(block.text)}
                latest = list(printed.values())[-1]
            elif block.language == "python":
                assert block.text.strip() in (ROOT / "examples" / "pipelines" / "asking.py").read_text()
            elif block.language == "json":
                assert pattern(block.text).search(normal(latest)), latest
    finally:
        if (tmp_path / ".clipper" / "supervisor.json").exists():
            reader.run("clipper stop")
    moods, shown = (out for command, out in printed.items() if "moods" in command or "show" in command)
    assert re.search(r'"good",\s*"bad"', moods)
    assert "asks desk.translate with query, when language.label == " in shown
    assert "words: words, tone: tone" in shown
    assert re.search(r"asks desk.topic with .*; in the last minute", shown)
