"""When files are taken, and what is told where they cannot be; what clients see of it is in test_tls.py."""

from pathlib import Path

import pytest

from certificates import Authority
from clipper.supervisor.keepers.certificates import Certificates
from clipper.tls.material import TlsMaterial


def test_files_are_taken_when_they_have_settled(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    certificates = Certificates(pair.paths, tmp_path / "copy.pem")
    told: list[TlsMaterial] = []
    certificates.follow(told.append)
    certificates.look()
    assert told == []
    pair.certificate.write_bytes(authority.issue("new").certificate.read_bytes())
    # It may be the first of two.
    certificates.look()
    assert certificates.problem is None
    authority.issue("new").put_in_place_of(pair)
    certificates.look()
    assert told == []
    certificates.look()
    assert told == [certificates.material]
    assert (tmp_path / "copy.pem").read_bytes().strip() in pair.certificate.read_bytes()


def test_a_copy_that_cannot_be_written_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    folder = tmp_path / "home"
    folder.mkdir()
    certificates = Certificates(pair.paths, folder / "copy.pem")
    before = certificates.material
    folder.rename(tmp_path / "away")
    authority.issue("new").put_in_place_of(pair)
    for _ in range(4):
        certificates.look()
    assert certificates.problem is not None and "cannot be written" in certificates.problem
    assert caplog.text.count("cannot be written") == 1
    assert certificates.material is before
    (tmp_path / "away").rename(folder)
    certificates.look()
    assert certificates.problem is None
    assert certificates.material is not before
