"""A query worker's settings; the supervisor passes them on the command line, as JSON."""

from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from clipper.control.difference import Difference
from clipper.control.shared_settings import SharedSettings
from clipper.control.snapshot import ApplicationSnapshot, Snapshot

Told = TypeVar("Told", Snapshot, Difference)


class WorkerConfig(SharedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a worker.

    Attributes:
        index: 0 to the number of workers - 1; stays the same over restarts.
        instance: a number below 2^20 that is new for each start of any worker of the home: the upper part of query ids.
        control: where the worker listens for the supervisor and for other workers: see ``parse_address``.
        identity: over TCP, the file with its key and certificate (``control.identity``), which is replaced before they
            expire.
        node: the address of its node, whose replicas it prefers; empty if there is only one node.
        store: where learned state is kept: ``sqlite:PATH`` or ``redis://…``; if empty, ``CLIPPER_STORE`` says it.
        artifacts: the folder with the code of users' own policies. If empty, snapshots have whole paths.
        kept: the file for the worker's snapshot (``worker.snapshot_file``); if empty, the worker keeps none.
        restart: how many times this instance was started before, on a node where no supervisor led.
        settle_timeout_s: how long ``Applied`` may wait for replicas to be dialled and drained.
        drain_timeout_s: how long a stop may wait for requests in progress.
    """

    index: int
    instance: int
    control: str
    identity: str = ""
    node: str = ""
    store: str = ""
    artifacts: str = ""
    kept: str = ""
    restart: int = 0
    settle_timeout_s: float = 5.0
    drain_timeout_s: float = 10.0


def located(told: Told, artifacts: str) -> Told:
    """Return a command with whole paths of users' own code; nodes get paths below ``WorkerConfig.artifacts``."""
    if not artifacts or all(one.selection.code is None for one in told.applications):
        return told

    def with_whole_path(one: ApplicationSnapshot) -> ApplicationSnapshot:
        code = one.selection.code
        if code is None:
            return one
        return replace(one, selection=replace(one.selection, code=str(Path(artifacts) / code)))

    return replace(told, applications=tuple(map(with_whole_path, told.applications)))
