"""Small files that are replaced as a whole."""

import os
import stat
from pathlib import Path

import pytest

from clipper.base.whole_files import write_whole


def test_a_file_that_survives_a_power_cut_has_its_name_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    path = tmp_path / "secret"
    write_whole(path, [b"a", b"b"], is_synced=True)
    assert synced == [False, True]
    write_whole(path, [b"c"])
    assert synced == [False, True]
    assert path.read_bytes() == b"c" and path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
