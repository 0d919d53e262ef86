import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument, NotFound, RequestTimeout, TooLarge, Unavailable
from clipper.supervisor.artifacts.store import MAX_UPLOADS, Artifacts
from tests.supervisor.live_server import Server
from tests.supervisor.tar_files import cve_2025_4517, file, symlink, tar_of
from tests.waiting import until_async


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 700):
        yield data[start : start + 700]


def add(artifacts: Artifacts, data: bytes, digest: str | None = None) -> bool:
    return asyncio.run(artifacts.add(digest or hashlib.sha256(data).hexdigest(), chunks_of(data)))


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def test_an_artifact_is_unpacked_once(artifacts: Artifacts, tmp_path: Path) -> None:
    data = tar_of(file("code/m.py", b"code"), file("data/w", bytes(5000)))
    digest = hashlib.sha256(data).hexdigest()
    assert not artifacts.has(digest)
    assert add(artifacts, data)
    assert artifacts.has(digest)
    assert (tmp_path / digest / "code" / "m.py").read_bytes() == b"code"
    assert not add(artifacts, data)
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    artifacts.remove(digest)
    assert not artifacts.has(digest)


class CopiesInMemory:
    """Stands in for ``SharedArtifacts``; if ``full``, it refuses."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.full = False

    def has(self, digest: str) -> bool:
        return digest in self.kept

    async def keep(self, digest: str, tar: Path) -> None:
        if self.full:
            raise TooLarge("there is no room")
        self.kept[digest] = tar.read_bytes()

    def remove(self, digest: str) -> None:
        self.kept.pop(digest, None)

    def clean(self, is_needed: Callable[[str], bool]) -> None:
        self.kept = {digest: tar for digest, tar in self.kept.items() if is_needed(digest)}


def test_an_artifact_can_be_deployed_only_once_its_copy_is_kept(tmp_path: Path) -> None:
    copies = CopiesInMemory()
    artifacts = Artifacts(tmp_path, copies=copies)
    data = tar_of(file("code/m.py", b"code"))
    digest = hashlib.sha256(data).hexdigest()
    copies.full = True
    with pytest.raises(TooLarge):
        add(artifacts, data)
    assert artifacts.has(digest) and not artifacts.renew(digest)
    with pytest.raises(NotFound):
        artifacts.check_inside(digest, "code/m.py")
    copies.full = False
    assert not add(artifacts, data)  # it was here, and its copy is new
    assert copies.kept == {digest: data}
    assert artifacts.renew(digest)
    artifacts.check_inside(digest, "code/m.py")

    copies.kept["ef" * 32] = copies.kept["cd" * 32] = b"of an earlier leader"
    artifacts.clean_copies(lambda name: name == "cd" * 32)
    assert sorted(copies.kept) == sorted([digest, "cd" * 32])
    artifacts.remove(digest)
    assert list(copies.kept) == ["cd" * 32]


@pytest.mark.parametrize(
    "data",
    [
        b"no tar",
        tar_of(file("../outside")),
        tar_of(symlink("a", "/etc")),
        tar_of(symlink("a", ".."), file("a/outside")),
        tar_of(file("a", bytes(5000)))[:1500],
    ],
)
def test_what_cannot_be_unpacked_safely_leaves_nothing(artifacts: Artifacts, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        add(artifacts, data)
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "outside").exists()


def test_a_body_of_another_digest_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="send it again"):
        add(artifacts, tar_of(file("a")), "ab" * 32)
    with pytest.raises(InvalidArgument, match="64 of"):
        artifacts.has("../..")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError, match="went away"):
        asyncio.run(artifacts.add("ab" * 32, breaks_off()))
    assert list(tmp_path.iterdir()) == []


def test_uploads_that_stand_still_hold_up_others_for_a_while_only(tmp_path: Path) -> None:
    data = tar_of(file("a", bytes(50_000)))
    digest = hashlib.sha256(data).hexdigest()

    async def stands_still() -> AsyncIterator[bytes]:
        yield data[:1000]
        await asyncio.sleep(3600)

    async def test() -> None:
        # Their waits for a turn and for a chunk are as long: the fifth gives up, or comes after them.
        artifacts = Artifacts(tmp_path, idle_timeout_s=0.3)
        still = [asyncio.create_task(artifacts.add(digest, stands_still())) for _ in range(MAX_UPLOADS)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(artifacts.add(digest, chunks_of(data)))
        for task in still:
            with pytest.raises(RequestTimeout, match="did not come in time"):
                await task
        with contextlib.suppress(Unavailable):
            await waiting
        assert artifacts.has(digest) or await artifacts.add(digest, chunks_of(data))
        assert [path.name for path in tmp_path.iterdir()] == [digest]

    asyncio.run(test())


def test_more_uploads_than_there_are_places_for_are_told_so(tmp_path: Path) -> None:
    data = tar_of(file("a"))
    digest = hashlib.sha256(data).hexdigest()

    async def test() -> None:
        artifacts, to_end = Artifacts(tmp_path), asyncio.Event()

        async def drips() -> AsyncIterator[bytes]:
            while not to_end.is_set():
                yield b""
                await asyncio.sleep(0.01)
            yield data

        dripping = [asyncio.create_task(artifacts.add(digest, drips())) for _ in range(MAX_UPLOADS)]
        await until_async(artifacts._turns.locked)
        artifacts._idle_timeout_s = 0.05  # of what comes now, and not of those that drip
        with pytest.raises(Unavailable, match="being uploaded"):
            await artifacts.add(digest, chunks_of(data))
        to_end.set()
        assert sorted(await asyncio.gather(*dripping)) == [False] * (MAX_UPLOADS - 1) + [True]
        assert [path.name for path in tmp_path.iterdir()] == [digest]

    asyncio.run(test())


def test_one_that_is_given_up_while_it_is_unpacked_leaves_nothing(tmp_path: Path) -> None:
    data = tar_of(*(file(str(number), bytes(5000)) for number in range(2000)))
    digest = hashlib.sha256(data).hexdigest()

    async def test() -> None:
        artifacts = Artifacts(tmp_path)
        adding = asyncio.create_task(artifacts.add(digest, chunks_of(data)))
        await until_async(lambda: list(tmp_path.glob(".incoming-*/unpacked/1")))
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding

    asyncio.run(test())
    assert list(tmp_path.iterdir()) == []


def test_a_tar_that_would_write_outside_by_a_server(shared: Server) -> None:
    before = sorted(path.name for path in (shared.home / "artifacts").iterdir())
    outside = shared.home.parent / "outside"
    for data in (
        cve_2025_4517(),
        tar_of(file(f"../../../{outside.name}")),
        tar_of(symlink("a", "../../.."), file("a/x")),
    ):
        answer = shared.ask("PUT", f"/artifacts/{hashlib.sha256(data).hexdigest()}", data, "application/x-tar")
        assert answer.status_code == 400 and "tar of plain files" in answer.json()["cause"]
    assert sorted(path.name for path in (shared.home / "artifacts").iterdir()) == before
    assert not outside.exists()


def test_paths_inside_an_artifact(artifacts: Artifacts) -> None:
    data = tar_of(file("model.joblib"), symlink("alias", "model.joblib"))
    digest = hashlib.sha256(data).hexdigest()
    add(artifacts, data)
    for path in ("", "model.joblib", "alias"):
        artifacts.check_inside(digest, path)
    for path in ("none", "..", "/etc/passwd", "../" + digest + "x"):
        with pytest.raises(InvalidArgument):
            artifacts.check_inside(digest, path)
    with pytest.raises(NotFound, match="PUT it"):
        artifacts.check_inside("ab" * 32, "")


def test_what_a_killed_supervisor_left_is_removed(artifacts: Artifacts, tmp_path: Path) -> None:
    data = tar_of(file("a"))
    add(artifacts, data)
    (tmp_path / ".incoming-1" / "unpacked").mkdir(parents=True)
    artifacts.remove_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == [hashlib.sha256(data).hexdigest()]
