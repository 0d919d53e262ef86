"""A certificate that cannot be used is refused where it comes in, and the error says what to do."""

import os
import ssl
from pathlib import Path

import pytest

from clipper.base.tls.material import MAX_FILE_BYTES, TlsPaths, own_certificate, read_material, server_context
from clipper.errors import InvalidArgument
from tests.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def refusal(paths: TlsPaths) -> str:
    with pytest.raises(InvalidArgument) as found:
        read_material(paths)
    return str(found.value)


def test_a_pair_is_read_and_not_shown(authority: Authority) -> None:
    pair = authority.issue("server")
    material = read_material(TlsPaths(pair.certificate, pair.key, authority.certificate))
    context = server_context(material)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert b"PRIVATE" in material.key
    assert "PRIVATE" not in repr(material)
    # The chain's first, which is the server's own.
    assert own_certificate(material).strip() == pair.certificate.read_bytes().split(b"\n-----BEGIN")[0].strip()


def test_one_file_may_hold_both(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("both")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    server_context(read_material(TlsPaths(both, both)))


def test_what_is_refused(authority: Authority, tmp_path: Path) -> None:
    pair, other = authority.issue("one"), authority.issue("other")
    encrypted = authority.issue("encrypted", password=b"secret")
    empty, large, broken = tmp_path / "empty.pem", tmp_path / "large.pem", tmp_path / "broken.pem"
    empty.touch()
    large.write_bytes(pair.certificate.read_bytes() + b"\n" * MAX_FILE_BYTES)
    broken.write_bytes(pair.certificate.read_bytes().replace(b"M", b"N"))
    missing = tmp_path / "missing.pem"
    assert f"--tls-cert {missing} cannot be read: No such file" in refusal(TlsPaths(missing, pair.key))
    # Opening a pipe would hold the server until somebody writes into it.
    os.mkfifo(pipe := tmp_path / "pipe.pem")
    for wrong in (tmp_path, pipe):
        assert f"--tls-key {wrong} is not a file" in refusal(TlsPaths(pair.certificate, wrong))
    assert "is not the key of the certificate" in refusal(Pair(pair.certificate, other.key).paths)
    assert "is encrypted" in refusal(encrypted.paths)
    assert f"--tls-key {pair.certificate} holds no private key" in refusal(TlsPaths(pair.certificate, pair.certificate))
    for wrong in (empty, large):
        assert f"--tls-cert {wrong} holds no certificate" in refusal(TlsPaths(wrong, pair.key))
        assert "--tls-client-ca" in refusal(TlsPaths(pair.certificate, pair.key, wrong))
    assert "cannot be used" in refusal(TlsPaths(broken, pair.key))
    wrong_ca = refusal(TlsPaths(pair.certificate, pair.key, broken))
    assert f"--tls-client-ca {broken} cannot be used" in wrong_ca
