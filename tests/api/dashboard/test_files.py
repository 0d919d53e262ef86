"""The dashboard's files as they lie in the package."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import vendor
from hatchling.builders.wheel import WheelBuilder

from clipper.api.dashboard.files import STATIC, read_files

ROOT = Path(__file__).parents[3]
VENDOR = STATIC / "vendor"
# Ours: what a stranger's libraries do is theirs, and the browser's policy holds for both.
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if VENDOR not in path.parents)
OURS = [*SCRIPTS, *STATIC.glob("*.css"), *STATIC.glob("*.html")]
# The most that a supervisor holds in memory, and a browser loads once.
MAX_BYTES = 400 * 1024
MAX_LINES = 400
DANGEROUS = (
    *("innerHTML", "outerHTML", "dangerouslySetInnerHTML", "insertAdjacentHTML", "document.write", "srcdoc"),
    *("eval(", "new Function", "javascript:", "setAttribute(", "document.cookie", "localStorage"),
)


def test_libraries_are_those_that_were_fetched() -> None:
    record = json.loads((VENDOR / "packages.json").read_text())
    assert [(one["name"], one["version"], one["licence"]) for one in record] == [
        (package.name, package.version, package.licence) for package in vendor.PACKAGES
    ]
    known = {name: digest for package in record for name, digest in package["sha256"].items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    found.pop("packages.json")
    assert found == known
    assert {f"{package.name}.LICENSE.txt" for package in vendor.PACKAGES} <= known.keys()


def test_a_library_is_changed_so_that_a_browser_finds_the_other() -> None:
    code = b'import{options as n}from"preact";var t;\n//# sourceMappingURL=hooks.mjs.map\n'
    assert vendor.vendored(code) == b'import{options as n}from"./preact.js";var t;\n'


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_script_makes_no_html_of_texts_and_runs_none(path: Path) -> None:
    text = path.read_text()
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert forbidden not in text
    assert "javascript:" not in text
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_file_names_no_other_site(path: Path) -> None:
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import", path.read_text()) == []


def test_every_import_is_a_file_beside_it() -> None:
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r'\b(?:from|import)\s*"([\w./@-]+)"', path.read_text()):
            assert name.startswith("."), f"{path}: {name}"
            assert (path.parent / name).resolve().is_file(), f"{path}: {name}"


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()
    assert "<style" not in page and not re.search(r"\s(?:on\w+|style)=", page)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]


def test_all_of_it_is_small() -> None:
    assert sum(len(file.content) for file in read_files().values()) < MAX_BYTES


def test_the_wheel_has_it() -> None:
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    expected = {
        f"clipper/api/dashboard/static/{path.relative_to(STATIC)}" for path in STATIC.rglob("*") if path.is_file()
    }
    assert expected <= included


def test_a_file_of_an_unknown_type_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("")
    (tmp_path / "picture.bmp").write_bytes(b"BM")
    with pytest.raises(KeyError, match="bmp"):
        read_files(tmp_path)


def test_charts_ask_for_series_that_there_are() -> None:
    page = (ROOT / "docs/events-and-series.md").read_text()  # which a test holds against the code
    named = {
        name.partition(".")[0] for row in re.findall(r"(?m)^\| (`.*?) \|", page) for name in re.findall("`(.+?)`", row)
    }
    asked = {
        name.rstrip(".") for script in SCRIPTS for name in re.findall(r'of\.(?:one|each)\("(.+?)"', script.read_text())
    }
    assert {"rate", "p99_ms", "batch_latency_ms"} <= asked
    assert asked - named == set()
