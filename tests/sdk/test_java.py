"""The Java SDK's own: the shared vectors."""

from pathlib import Path

import pytest

from tests.sdk.programs import VECTORS, run

pytestmark = pytest.mark.long


def test_the_codec_agrees_with_the_vectors(java_build: Path) -> None:
    assert f"{len(VECTORS)} vectors, 0 wrong" in check(java_build, *VECTORS)


def test_a_vector_that_differs_is_noticed(java_build: Path, tmp_path: Path) -> None:
    changed = (next(path for path in VECTORS if path.stem == "predict_ragged")).read_text()
    (tmp_path / "changed.txt").write_text(changed.replace("row: ffffffff", "row: fffffffe"))
    with pytest.raises(AssertionError, match="1 wrong"):
        check(java_build, tmp_path / "changed.txt")


def check(build: Path, *paths: Path) -> str:
    return run("java", "-cp", f"{build / 'classes'}:{build / 'test'}", "clipper.Vectors", *paths)
