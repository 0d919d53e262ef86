"""When a model's files have changed."""

import os
from pathlib import Path

from clipper.cli.commands.serve import Watch


def test_a_change_is_told_once_and_when_it_is_over(tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(b"1")
    watch = Watch([model])
    assert not watch.has_changed()
    model.write_bytes(b"12")
    assert not watch.has_changed(), "it may be written on"
    model.write_bytes(b"123")
    assert not watch.has_changed()
    assert watch.has_changed()
    assert not watch.has_changed()


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(b"1")

    def is_seen() -> bool:
        return (watch.has_changed(), watch.has_changed())[1]

    watch = Watch([model])
    replacement = tmp_path / "model.new"
    replacement.write_bytes(b"2")
    assert is_seen(), "a file beside it"
    stat = model.stat()
    replacement.replace(model)
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert is_seen(), "a file of the same size and time in its place"
    model.unlink()
    assert is_seen() and not is_seen()
    model.write_bytes(b"2")
    assert is_seen() and not is_seen()


def test_other_files_are_followed_and_no_change_is_lost(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first.py", tmp_path / "b" / "second.py"
    for file in (first, second):
        file.parent.mkdir()
        file.write_text("1")
    watch = Watch([first])
    first.write_text("12")
    watch.follow([first, second])
    assert not watch.has_changed()
    assert watch.has_changed(), "it had changed before"
    second.write_text("12")
    assert not watch.has_changed()
    assert watch.has_changed()
    watch.follow([second])
    first.write_text("123")
    assert not watch.has_changed()
    assert not watch.has_changed()
