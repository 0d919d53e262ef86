"""docs/operations.md against the errors and statuses that it lists."""

import re
from pathlib import Path

from clipper.api.server.statuses import STATUSES as MANAGEMENT
from clipper.errors import ClipperError
from clipper.supervisor.folders import HomeFolders
from clipper.worker.frontend.http.statuses import STATUSES as QUERY

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d+|none) \| (\d+|none) \|", re.MULTILINE)
# A file or folder of a home, by its path there.
IN_HOME = re.compile(r"`([a-z0-9./-]+)` in the home\b|the home's f(?:ile|older) `([a-z0-9./-]+)`")


def error_codes(kind: type[ClipperError] = ClipperError) -> set[str]:
    return {kind.code}.union(*(error_codes(below) for below in kind.__subclasses__()))


def documented() -> dict[str, tuple[str, str]]:
    return {code: (query, management) for code, query, management in ROW.findall(PAGE)}


def test_every_error_code_is_explained() -> None:
    assert error_codes() - documented().keys() == set()


def test_codes_and_statuses_are_those_of_the_two_ports() -> None:
    codes = QUERY.keys() | MANAGEMENT.keys()
    assert documented() == {code: (str(QUERY.get(code, "none")), str(MANAGEMENT.get(code, "none"))) for code in codes}


def test_what_pages_say_is_in_the_home_is_there() -> None:
    home = HomeFolders(Path("home"), Path("home"))
    there = {getattr(home, name) for name in dir(HomeFolders) if isinstance(getattr(home, name, None), Path)}
    pages = (Path(__file__).parents[2] / "docs").glob("*.md")
    said = {
        f"{page.name}: {name}" for page in pages for pair in IN_HOME.findall(page.read_text()) for name in pair if name
    }
    assert "decision-log.md: decisions/" in said
    assert [
        place
        for place in sorted(said)
        if home.root / place.split(": ")[1] not in {*there, home.logs / "supervisor.log"}
    ] == []
