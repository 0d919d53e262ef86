import socket
import stat
from pathlib import Path

import pytest

from clipper.settings.server import Transport
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.docker.launcher import Addresses
from clipper.supervisor.managers.docker.options import PUBLISHED, Setting
from clipper.supervisor.managers.launcher import ContainerNote


def addresses(folder: Path, transport: Transport = "tcp", network: str = "host") -> Addresses:
    return Addresses(folder, Setting("home", network, transport))


def note(number: int, listen: str) -> ContainerNote:
    return ContainerNote("ads", "2", 1, number, listen, VersionSpec("a1", "file", "model.joblib", manager="docker"))


def port_of(address: str) -> int:
    assert address.startswith("tcp:127.0.0.1:")
    return int(address.rpartition(":")[2])


def test_how_they_listen(tmp_path: Path) -> None:
    assert addresses(tmp_path, "unix").choose(7) == f"unix:{tmp_path}/c7/s"
    assert addresses(tmp_path, "tcp", "bridge").choose(7) == PUBLISHED


def test_a_port_is_kept_for_the_container_until_it_is_given_back(tmp_path: Path) -> None:
    chosen = addresses(tmp_path)
    listen = chosen.choose(7)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port_of(listen)))
    # As the runtime does, and both SDKs.
    with socket.create_server(("127.0.0.1", port_of(listen))) as container:
        socket.create_connection(container.getsockname()).close()
    chosen.give_back(note(7, listen))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port_of(listen)))


def test_a_token_is_new_and_for_the_owner_and_the_next_supervisor(tmp_path: Path) -> None:
    first = addresses(tmp_path)
    one, another = note(7, "tcp:127.0.0.1:1"), note(8, PUBLISHED)
    tokens = {first.prepare(one), first.prepare(another)}
    assert len(tokens) == 2 and min(map(len, tokens)) >= 32
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "c7", tmp_path / "c7/token")] == [0o700, 0o600]
    first.note_ready(one)
    later = addresses(tmp_path)
    assert {later.token(one), later.token(another)} == tokens
    assert (later.is_ready(one), later.is_ready(another)) == (True, False)


def test_on_a_unix_socket_there_is_none(tmp_path: Path) -> None:
    one = note(7, f"unix:{tmp_path}/c7/s")
    chosen = addresses(tmp_path, "unix")
    assert (chosen.prepare(one), chosen.token(one)) == ("", "")
    assert list((tmp_path / "c7").iterdir()) == []


def test_nothing_stays_of_containers_that_are_gone(tmp_path: Path) -> None:
    chosen = addresses(tmp_path)
    notes = [note(number, PUBLISHED) for number in (7, 8, 9)]
    for one in notes:
        chosen.prepare(one)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "c5.sock").touch()
    chosen.give_back(notes[0])
    chosen.give_back_others(notes[1:2])
    assert {path.name for path in tmp_path.iterdir()} == {"c8", "scratch", "c5.sock"}


def test_a_containers_files_in_its_folder_say_nothing_and_lead_nowhere(tmp_path: Path) -> None:
    sockets, outside = tmp_path / "run", tmp_path / "outside"
    sockets.mkdir()
    one = note(7, f"unix:{sockets}/c7/s")
    chosen = addresses(sockets, "unix")
    chosen.prepare(one)
    (sockets / "c7/ready").symlink_to(outside)
    assert not chosen.is_ready(one)
    chosen.note_ready(one)
    assert not outside.exists() and addresses(sockets, "unix").is_ready(one)
    chosen.give_back(one)
    assert list(sockets.iterdir()) == []
    chosen.note_ready(one)
    addresses(sockets, "unix").give_back_others([])
    assert list(sockets.iterdir()) == []
