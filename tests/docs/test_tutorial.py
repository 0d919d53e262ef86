"""The pages to learn from and to find a fault by, followed from first line to last against a real server."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reader, blocks, follow

DOCS = ROOT / "docs"
# A page is some thirty programs, one after another: on a machine that is busy with other work they take minutes.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    # A machine that other tests load keeps a longer objective.
    return Reader(tmp_path, {"--slo-ms 100": "--slo-ms 20000"})


def follow_to_the_end(page: str, reader: Reader, again: int = 3, skip: tuple[str, ...] = ()) -> None:
    try:
        ran = follow(DOCS / page, reader, ("pip ", "python3 -m venv", *skip), again)
    except BaseException:
        if (reader.folder / ".clipper" / "supervisor.json").exists():
            reader.run("clipper stop")
        raise
    assert ran[-1] == "clipper stop"


def test_the_tutorial_does_what_it_shows(reader: Reader) -> None:
    follow_to_the_end("tutorial.md", reader)


def test_a_click_log_becomes_feedback(reader: Reader) -> None:
    train = next(block for block in blocks(DOCS / "tutorial.md") if block.language == "python")
    assert reader.save(train)
    reader.run("python train.py")
    follow_to_the_end("click-log.md", reader)


def test_a_model_in_python_is_tested_deployed_and_asked(reader: Reader) -> None:
    follow_to_the_end("python-models.md", reader)


def test_keys_and_tokens_open_a_server_with_tls(reader: Reader) -> None:
    # The machine has neither the files nor the name of the page's other server.
    follow_to_the_end("keys-and-tls.md", reader, skip=("clipper start --host", "CLIPPER_TOKEN="))


def test_each_fault_is_shown_as_the_page_on_faults_shows_it(reader: Reader) -> None:
    # Problems come within some seconds, by which the page's reader has typed the command.
    follow_to_the_end("troubleshooting.md", reader, again=60)
