"""The file of the server's own token: made, kept, replaced, and what is wrong with it."""

import errno
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipper.api.schemas import NewToken
from clipper.errors import Conflict, InvalidArgument, NotFound, Unauthorized, Unavailable
from clipper.settings.home import read_token
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.operations import tokens as tokens_module
from clipper.supervisor.operations.tokens import MAX_TOKENS, TokenFile, Tokens
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.values.types import Role


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token = TokenFile(tmp_path / "token").open()
    finally:
        os.umask(before)
    assert len(token) >= 43 and (tmp_path / "token").read_text() == token + "\n"
    assert mode_of(tmp_path / "token") == 0o600
    assert TokenFile(tmp_path / "token").open() == token
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n \n"])
def test_an_empty_one_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "token.new").write_text("left by one that was killed")
    assert len(TokenFile(tmp_path / "token").open()) >= 43


def test_one_of_the_operators_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  " + "my.own~token" * 3 + "\r\n")
    assert TokenFile(tmp_path / "token").open() == "my.own~token" * 3


@pytest.mark.parametrize(
    "content", [b"short", b"x" * 513, b"two words " * 5, b"\xff" * 40, b"a" * 40 + b"\n" + b"b" * 40]
)
def test_what_is_no_token_keeps_the_server_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(Unavailable, match=f"{tmp_path}/token") as refused:
        TokenFile(tmp_path / "token").open()
    assert content.decode("latin-1") not in str(refused.value)


def test_one_that_others_can_read_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = TokenFile(tmp_path / "token").open()
    (tmp_path / "token").chmod(0o644)
    assert TokenFile(tmp_path / "token").open() == token
    assert mode_of(tmp_path / "token") == 0o600
    assert "others could read" in caplog.text and token not in caplog.text


def test_one_that_others_can_read_may_be_mounted_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = TokenFile(tmp_path / "token").open()
    (tmp_path / "token").chmod(0o644)

    def refused(_descriptor: int, _mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fchmod", refused)
    assert TokenFile(tmp_path / "token").open() == token
    assert "its mode cannot be changed: [Errno 30] Read-only file system" in caplog.text


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    with pytest.raises(Unavailable, match="is not a file"):
        TokenFile(tmp_path / "token").open()
    (tmp_path / "token").rmdir()
    token = TokenFile(tmp_path / "token")
    shown = token.open()
    (tmp_path / "token").unlink()
    os.mkfifo(tmp_path / "token", 0o600)
    assert token.again() == shown  # reading it would wait for a writer, and the whole server with it


def test_a_link_in_its_place_is_neither_followed_nor_changed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x" * 40)
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "token").symlink_to(tmp_path / "other")
    with pytest.raises(Unavailable, match="is a symlink"):
        TokenFile(tmp_path / "token").open()
    with pytest.raises(Unavailable, match="is a symlink"):  # a command would send its target to a server
        read_token(tmp_path)
    assert mode_of(tmp_path / "other") == 0o644
    (tmp_path / "token").unlink()
    token = TokenFile(tmp_path / "token")
    shown = token.open()
    (tmp_path / "token").unlink()
    (tmp_path / "token").symlink_to(tmp_path / "other")
    assert token.again() == shown


@pytest.fixture
def registry(tmp_path: Path) -> SqliteRegistry:
    return SqliteRegistry(tmp_path / "registry.sqlite3")


def role_of(tokens: Tokens, token: str | None) -> Role | None:
    holder = tokens.holder_of(token)
    return None if holder is None else holder.role


def test_tokens_are_known_by_their_digests_and_outlive_the_server(tmp_path: Path, registry: SqliteRegistry) -> None:
    tokens = Tokens(Catalog(registry), TokenFile(tmp_path / "token"))
    own = (tmp_path / "token").read_text().strip()
    reader, other = tokens.create(NewToken("grafana")), tokens.create(NewToken("deployer", "admin"))
    assert [role_of(tokens, text) for text in (own, reader.token, other.token, "", "x", "\udcff")] == [
        "admin",
        "read",
        "admin",
        None,
        None,
        None,
    ]
    again = Tokens(Catalog(registry), TokenFile(tmp_path / "token"))
    assert role_of(again, reader.token) == "read"
    again.revoke("grafana")
    assert role_of(again, reader.token) is None
    assert [(one.name, one.role) for one in again.list_all()] == [("deployer", "admin")]
    registry.close()
    at_rest = b"".join(path.read_bytes() for path in tmp_path.glob("registry*"))
    assert reader.token.encode() not in at_rest and other.token.encode() not in at_rest


def test_a_token_that_has_expired_is_refused_with_its_name(
    tmp_path: Path, registry: SqliteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(Catalog(registry), TokenFile(tmp_path / "token"))
    made = tokens.create(NewToken("guest", "admin", time.time() + 3600))
    assert role_of(tokens, made.token) == "admin" and tokens.list_all()[0].expires_at == made.expires_at
    assert made.expires_at is not None
    monkeypatch.setattr(tokens_module, "time", SimpleNamespace(time=lambda: made.expires_at))
    with pytest.raises(Unauthorized, match="token 'guest' expired on 20"):
        tokens.holder_of(made.token)
    assert role_of(tokens, (tmp_path / "token").read_text().strip()) == "admin"
    registry.close()


def test_tokens_that_cannot_be_made_or_revoked(tmp_path: Path, registry: SqliteRegistry) -> None:
    tokens = Tokens(Catalog(registry), TokenFile(tmp_path / "token"))
    with pytest.raises(InvalidArgument):
        tokens.create(NewToken("No Name"))
    for reserved in ("clipper", "operator"):
        with pytest.raises(InvalidArgument, match="events"):
            tokens.create(NewToken(reserved))
    for number in range(MAX_TOKENS):
        tokens.create(NewToken(f"t{number}"))
    with pytest.raises(Conflict, match="exists already"):
        tokens.create(NewToken("t1"))
    with pytest.raises(Conflict, match="revoke one first"):
        tokens.create(NewToken("one-more"))
    with pytest.raises(NotFound):
        tokens.revoke("nobody")
    registry.close()


def test_the_file_is_replaced_or_removed_while_the_server_runs(tmp_path: Path, registry: SqliteRegistry) -> None:
    path = tmp_path / "token"
    tokens = Tokens(Catalog(registry), TokenFile(path))
    first = path.read_text().strip()
    path.unlink()
    assert role_of(tokens, None) is None
    second = path.read_text().strip()
    # That call made the server read the file again, so the old token counts no more.
    assert (role_of(tokens, first), role_of(tokens, second)) == (None, "admin")
    path.write_text("y" * 50)
    assert role_of(tokens, "y" * 50) == "admin"
    assert role_of(tokens, second) is None
    # A text that is no token locks nobody out.
    path.write_text("no")
    assert (role_of(tokens, "no"), role_of(tokens, "y" * 50)) == (None, "admin")
    registry.close()
