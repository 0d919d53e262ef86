"""When files are taken, and what is told where they cannot be; what clients see of it is in test_tls.py."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from clipper.base.tls.material import TlsMaterial
from clipper.supervisor.keepers.certificates import Certificates
from tests.certificates import DAYS, Authority


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


def test_the_authority_of_clients_is_told_of_before_it_expires(tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    paths = replace(Authority(tmp_path).issue("server").paths, client_ca=clients.certificate)
    certificates = Certificates(paths, tmp_path / "copy.pem")
    end_s = certificates.client_ca_expires_at
    assert end_s is not None and abs(end_s - time.time() - DAYS * 86400) < 3600
    assert not any("--tls-client-ca" in told for told in certificates.problems(end_s - 15 * 86400))
    (told,) = (told for told in certificates.problems(end_s - 13 * 86400) if "--tls-client-ca" in told)
    assert "expires in 13 days" in told


def test_without_an_authority_of_clients_none_expires(tmp_path: Path) -> None:
    assert Certificates(Authority(tmp_path).issue("server").paths, tmp_path / "copy.pem").client_ca_expires_at is None
