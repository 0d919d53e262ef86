"""The snapshot that a worker keeps, and serves by when it is started again while no supervisor is there."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper.base.tls.material import TlsMaterial
from clipper.control.difference import EPOCH_BITS, Difference
from clipper.control.identity import PeerName
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    CommandRefused,
    GetStatistics,
)
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.worker.selection.query import QueryIds
from clipper.worker.snapshot_file import SnapshotFile, epoch_of
from tests.control_channel import LEADS
from tests.remote_worker import RemoteWorker
from tests.serving import Client, application, model, serving, version
from tests.waiting import until, until_async

ONE, OTHER = (ApplicationSnapshot(name, "float64[1]", 20.0) for name in ("one", "other"))
TLS = TlsMaterial(b"certificate", b"key")


class Answering:
    """A worker that replies what the test says; by default that what it is told is in force."""

    def __init__(self) -> None:
        self.reply: Callable[[int], Applied] = lambda generation: Applied(generation, {}, ())

    async def __call__(self, command: AnyCommand) -> AnyReply:
        match command:
            case Apply(snapshot=told) | ApplyDifference(difference=told):
                return self.reply(told.generation)
        raise AssertionError(command)


def keeping(tmp_path: Path, *commands: AnyCommand, answering: Answering | None = None) -> Apply | None:
    """The snapshot that is kept after these."""
    path = tmp_path / "kept"

    async def main() -> None:
        worker = SnapshotFile(path, answering or Answering())
        task = asyncio.ensure_future(worker.run())
        for command in commands:
            await worker.answer(command)
        if worker._newest is not None:
            await until_async(lambda: worker.read() == worker._newest)
        task.cancel()

    asyncio.run(main())
    return SnapshotFile(path, Answering()).read()


def test_differences_are_kept_as_the_whole_that_they_lead_to(tmp_path: Path) -> None:
    found = keeping(
        tmp_path,
        Apply(Snapshot(7, (ONE,)), TLS),
        ApplyDifference(Difference(7, 8, (OTHER,))),
        # Late, and of before what is in force.
        ApplyDifference(Difference(3, 4, gone_applications=("other",))),
        ApplyDifference(Difference(8, 9, gone_applications=("one",)), is_stopping=True),
    )
    assert found == Apply(Snapshot(9, (OTHER,)), TLS, is_stopping=True)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


def test_what_is_not_in_force_is_not_kept(tmp_path: Path) -> None:
    answering = Answering()
    answering.reply = lambda _: Applied(5, {}, (), needs_whole=True)
    assert keeping(tmp_path, ApplyDifference(Difference(4, 5, (ONE,))), answering=answering) is None
    answering.reply = lambda _: Applied(9, {}, ())
    assert keeping(tmp_path, Apply(Snapshot(5, (ONE,))), answering=answering) is None
    assert epoch_of(None) == 0


@pytest.mark.parametrize("data", [b"", b"\x05\x00\x00\x00", b"\xff" * 40, b"\x01\x00\x00\x00\xc1"])
def test_a_file_that_is_no_snapshot_is_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "kept").write_bytes(data)
    assert SnapshotFile(tmp_path / "kept", Answering()).read() is None


def test_a_restarted_one_answers_by_what_it_had_and_obeys_no_old_server() -> None:
    with serving() as system:
        container = system.start_container()
        first = RemoteWorker(system, 1, kept=str(system.folder / "kept"))
        first.until_logged("answers on")
        snapshot = Snapshot((LEADS.number << EPOCH_BITS) + 1, (application("app"),), (model(version(container)),))
        first.ask(Apply(snapshot))
        until((system.folder / "kept").exists)
        with Client(first.port) as client:
            before = client.ask("/app/predict", {"input": [20, 22]}).json
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL

        # Nobody tells it anything.
        second = RemoteWorker(system, 1, kept=str(system.folder / "kept"), restart=1, at=first)
        second.until_logged("serves again by its kept snapshot, of epoch 3")
        with Client(second.port) as client:
            answer = client.ask("/app/predict", {"input": [20, 23]}).json
            assert answer["output"] == 43.0
            # Its ids are of the next 64th of the range, so feedback on the queries of before is on none of its own.
            part_bits = QueryIds.COUNT_BITS - QueryIds.RESTART_BITS
            assert answer["query_id"] >> part_bits == (before["query_id"] >> part_bits) + 1
            late = client.ask("/app/observe", {"query_id": before["query_id"], "label": 42.0})
            assert late.status == 404, late
        assert second.ask(GetStatistics((), ())).worker.generation == snapshot.generation
        with pytest.raises(CommandRefused, match="obeys epoch 3"):
            second.ask(Apply(Snapshot((2 << EPOCH_BITS) + 9)), PeerName("supervisor", 2))
