import subprocess
import sys
from pathlib import Path

import pytest

from scripts import real_models
from scripts.real_models import made

ADDS = """
import sys
from pathlib import Path

folder, *inputs = map(Path, sys.argv[1:])
(folder / "sum").write_text(str(sum(int(each.read_text()) for each in inputs)))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(real_models, "environment", lambda _framework: Path(sys.executable))
    (tmp_path / "adds.py").write_text(ADDS)
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    return tmp_path / "adds.py"


def test_a_scripts_product_is_kept_and_made_anew_when_its_inputs_change(script: Path) -> None:
    one, two = script.with_name("one"), script.with_name("two")
    folder = made(script, "any", one, two)
    assert (folder / "sum").read_text() == "3"
    (folder / "sum").write_text("as it was")
    two.write_text("20")
    made.cache_clear()
    assert (made(script, "any", one, two) / "sum").read_text() == "21"
    two.write_text("2")
    made.cache_clear()
    assert (made(script, "any", one, two) / "sum").read_text() == "as it was"


def test_nothing_is_kept_of_a_script_that_failed(script: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script.with_name("two").write_text("no number")
    with pytest.raises(subprocess.CalledProcessError):
        made(script, "any", script.with_name("two"))
    assert "no number" in capfd.readouterr().err
    script.with_name("two").write_text("2")
    assert (made(script, "any", script.with_name("two")) / "sum").read_text() == "2"
