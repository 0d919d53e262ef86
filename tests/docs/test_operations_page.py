"""docs/operations.md against the errors and statuses that it lists."""

import re
from pathlib import Path

from clipper.api.server.statuses import STATUSES as MANAGEMENT
from clipper.errors import ClipperError
from clipper.worker.frontend.http.statuses import STATUSES as QUERY

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d+|none) \| (\d+|none) \|", re.MULTILINE)


def error_codes(kind: type[ClipperError] = ClipperError) -> set[str]:
    return {kind.code}.union(*(error_codes(below) for below in kind.__subclasses__()))


def documented() -> dict[str, tuple[str, str]]:
    return {code: (query, management) for code, query, management in ROW.findall(PAGE)}


def test_every_error_code_is_explained() -> None:
    assert error_codes() - documented().keys() == set()


def test_codes_and_statuses_are_those_of_the_two_ports() -> None:
    codes = QUERY.keys() | MANAGEMENT.keys()
    assert documented() == {code: (str(QUERY.get(code, "none")), str(MANAGEMENT.get(code, "none"))) for code in codes}
