"""The control plane at the size that docs/scale.md promises."""

from pathlib import Path

import pytest

from benchmarks.scale.__main__ import REPLICAS_OF_MODEL, SIZES, WORKERS, broken_promises, measure
from benchmarks.scale.fleet import Size, fleet


@pytest.mark.scale
def test_a_thousand_models_and_64_workers(tmp_path: Path) -> None:
    size = Size(SIZES[-1], SIZES[-1] * REPLICAS_OF_MODEL, WORKERS)
    with fleet(tmp_path, size) as (running, digest):
        assert broken_promises(measure(running, size, digest)) == []
