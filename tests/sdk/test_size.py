"""Each SDK is read in one sitting: codec and loop together, without what is blank or nothing but a comment."""

import re

import pytest

from tests.sdk.programs import SDK

NO_CODE = re.compile(r"\s*(//.*|/?\*.*)?")


@pytest.mark.parametrize(("files", "max_lines"), [("java/src/clipper/*.java", 780)])
def test_an_sdk_is_small(files: str, max_lines: int) -> None:
    lines = [line for path in sorted(SDK.glob(files)) for line in path.read_text().splitlines()]
    assert 0 < sum(NO_CODE.fullmatch(line) is None for line in lines) <= max_lines
    assert max(map(len, lines)) <= 120


def test_the_cpp_sdk_is_one_header_of_under_730_lines_in_all() -> None:
    [header] = [path for path in (SDK / "cpp").rglob("*") if path.suffix in {".h", ".hpp", ".inc"}]
    lines = header.read_text().splitlines()
    assert len(lines) < 730
    assert max(map(len, lines)) <= 120
