"""The slots of all replicas, whatever kind of container each has."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipper.base.masking import SECRETS_VARIABLE
from clipper.errors import ClipperError, InvalidArgument, Unavailable
from clipper.settings.server import MAX_OUTPUT_BYTES, LogFormat
from clipper.settings.version import ManagerName, VersionSpec
from clipper.supervisor.managers.caller import SampleSource
from clipper.supervisor.managers.launcher import ELSEWHERE, ContainerNote, Keeper, Launcher, Runnable, slot_name
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS, History, Phase, Slot
from clipper.supervisor.managers.replica import ADOPTION_TIMEOUT_S, PER_CORE, Death, Replica, StartTurns
from clipper.values.types import ModelId

log = logging.getLogger(__name__)

# The loaders whose containers run Clipper's own runtime.
RUNTIME_LOADERS = ("file", "import")


@dataclass(slots=True)
class SlotStatus:
    """A slot: its container, if any, and how its earlier containers ended.

    ``restarts`` counts the starts after the first. ``start_failure`` is set while the slot is dead because its last
    start failed.
    """

    slot: Slot
    spec: VersionSpec
    replica: Replica | None = None
    task: "asyncio.Task[None] | None" = None
    history: History = NO_DEATHS
    restarts: int = 0
    last_error: str | None = None
    start_failure: Death | None = None

    @property
    def phase(self) -> Phase:
        return self.replica.phase if self.replica else "dead"

    @property
    def is_looping(self) -> bool:
        """Whether the slot is in a crash loop: also while it is tried again, until it is ready."""
        return self.history.crash_loop and self.phase not in ("ready", "stopping")


class Manager:
    """Starts, watches and stops containers. The reconciler decides which; everything runs on one event loop."""

    def __init__(
        self,
        launchers: Mapping[ManagerName, Launcher],
        logs_folder: Path,
        next_number: Callable[[], int],
        batch_timeout_s: Callable[[ModelId], float],
        samples: SampleSource,
        on_change: Callable[[], None],
        build: str = "",
        log_format: LogFormat = "text",
        *,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        has_workers_elsewhere: bool = False,
        cores: int = 2,
        secret_values: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """Make a manager without slots. Nothing starts yet.

        Args:
            next_number: returns a number that no replica had before; raises ``RegistryUnavailable`` if it cannot.
            batch_timeout_s: how long a batch of a version may run before its replica counts as hanging.
            on_change: called after a replica has come up or died.
            build, log_format, max_output_bytes: settings of the runtime that containers get from us.
            has_workers_elsewhere: whether query workers run on the nodes of a cluster, and not on this machine.
            cores: the cores of this machine, which containers that start at once share.
            secret_values: returns the variables of ``VersionSpec.secrets``; raises ClipperError if one is missing.
        """
        self._has_workers_elsewhere = has_workers_elsewhere
        self.secret_values = secret_values
        self._starts = StartTurns(PER_CORE * cores)
        self._build = build
        self._log_format: LogFormat = log_format
        self._max_output_bytes = max_output_bytes
        self._launchers = launchers
        self._logs_folder = logs_folder
        self._next_number = next_number
        self._batch_timeout_s = batch_timeout_s
        self._samples = samples
        self._on_change = on_change
        self._slots: dict[Slot, SlotStatus] = {}
        # The same slots by version: with thousands of replicas, few questions are about all.
        self._by_version: dict[ModelId, dict[Slot, SlotStatus]] = {}
        self._touched: set[Slot] = set()
        self._emptied: frozenset[str] = frozenset()

    def slots(self, model_id: ModelId | None = None) -> list[SlotStatus]:
        """Return every slot, or those of a version, in order."""
        found = self._slots if model_id is None else self._by_version.get(model_id, {})
        return [found[slot] for slot in sorted(found)]

    def touched(self) -> dict[Slot, SlotStatus | None]:
        """Return each slot that may have changed since the last call, with its status; None if it is gone."""
        touched, self._touched = self._touched, set()
        return {slot: self._slots.get(slot) for slot in touched}

    def check(self, manager: ManagerName, asked: Runnable) -> None:
        """Raise InvalidArgument if a version's manager cannot run it, or is not installed here."""
        launcher = self._launchers.get(manager)
        if launcher is None:
            raise InvalidArgument(self._why_not(manager))
        launcher.check(asked)

    def is_outdated(self, note: ContainerNote) -> bool:
        """Whether a container runs another Clipper's code or other settings than containers that start now."""
        is_ours = note.spec.loader in RUNTIME_LOADERS
        own = self._build, self._log_format, self._max_output_bytes
        return is_ours and (note.build, note.log_format, note.max_output_bytes) != own

    def has_to_move(self, replica: Replica) -> bool:
        """Whether a slot's container is on a node that is being emptied."""
        return (replica.node or "").partition(" ")[0] in self._emptied

    def empty(self, nodes: Collection[str]) -> None:
        """Have replicas moved away from the nodes at these addresses, and from no others. Nothing is placed there."""
        if nodes != self._emptied:
            self._emptied = frozenset(nodes)
            self._touched |= self._slots.keys()
            self._on_change()

    def keepers(self) -> dict[str, Keeper]:
        """Return the tasks of all managers that run as long as the server, by what they do."""
        return {what: run for launcher in self._launchers.values() for what, run in launcher.keepers().items()}

    def log_path(self, slot: Slot) -> Path:
        return self._logs_folder / f"{slot_name(slot)}.log"

    def log_paths(self, model_id: ModelId) -> dict[str, Path]:
        """Return the logs of a version's replicas, also of replicas that are gone, by the replica's name."""
        stem = f"{model_id.name}@{model_id.version}-"
        found = {}
        for path in sorted(self._logs_folder.glob(f"{stem}*.log")):
            index = path.stem.removeprefix(stem)
            if index.isdecimal():  # else it is the log of a version whose name begins with this one's
                found[str(Slot(model_id.name, model_id.version, int(index)))] = path
        return found

    def start(self, slot: Slot, spec: VersionSpec) -> None:
        """Start a container in a slot that has none. A failure counts as a death like any other."""
        status = self._slots.get(slot)
        if status is None:
            status = self._add(SlotStatus(slot, spec))
        else:
            status.restarts += 1
            status.spec = spec
        status.start_failure = None
        try:
            status.replica = self._new_replica(slot, spec)
        except (ClipperError, OSError) as error:
            self._has_died(status, Death(f"container {slot} cannot be started: {error}", 0.0))
            return
        self._touched.add(slot)
        self._watch(status, status.replica, spec.start_timeout_s)

    async def orphans(self) -> list[ContainerNote]:
        """Return the containers that an earlier supervisor started. Some may be gone."""
        return [note for launcher in self._launchers.values() for note in await launcher.orphans()]

    async def adopt(self, note: ContainerNote) -> Replica | None:
        """Take over a container that an earlier supervisor started; None if it is gone.

        A container that was ready must answer at once; otherwise it has its whole start timeout. If it does not answer,
        that counts as a death like any other.
        """
        launcher, log_path = self._launchers[note.spec.manager], self.log_path(note.slot)
        container = await launcher.adopt(note, log_path)
        if container is None:
            await launcher.clean_up(note)
            return None
        replica = Replica(note, launcher, log_path, container, variables=self._known_variables(note.spec))
        status = self._add(SlotStatus(note.slot, note.spec, replica))
        log.info("took over %(replica)s, pid %(pid)s", {**note.log_fields, "pid": container.pid})
        self._watch(status, replica, ADOPTION_TIMEOUT_S if note.ready else note.spec.start_timeout_s)
        return replica

    def expect(self, asleep: Mapping[ModelId, VersionSpec]) -> None:
        """Tell the managers, after a start of the server, which versions sleep: the next query may wake any of them."""
        for name, launcher in self._launchers.items():
            own = {
                slot_name(Slot(id_.name, id_.version, 1)): spec for id_, spec in asleep.items() if spec.manager == name
            }
            launcher.expect(own)

    async def end_orphan(self, note: ContainerNote) -> None:
        """Kill a container that an earlier supervisor started."""
        launcher = self._launchers[note.spec.manager]
        container = await launcher.adopt(note, self.log_path(note.slot))
        if container is not None:
            await container.stop(grace_s=0)
        await launcher.clean_up(note)

    async def save_logs(self, model_id: ModelId) -> dict[str, str]:
        """Bring the logs of a version's replicas up to date. Return why some cannot be, by the replica's name."""
        replicas = [status.replica for status in self.slots(model_id) if status.replica]
        causes = await asyncio.gather(*(replica.save_log() for replica in replicas))
        return {str(replica.note.slot): cause for replica, cause in zip(replicas, causes) if cause is not None}

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove what is kept for versions whose artifacts are not among these digests."""
        await asyncio.gather(*(launcher.prune(artifacts) for launcher in self._launchers.values()))

    def retire(self, slot: Slot) -> None:
        """Take a slot's replica out of service. Call ``stop`` once no query needs it."""
        replica = self._slots[slot].replica
        self._touched.add(slot)
        if replica is not None:
            replica.retire()

    def stop(self, slot: Slot) -> None:
        """Begin to stop a slot's container. The slot goes when the container has."""
        replica = self._slots[slot].replica
        self._touched.add(slot)
        if replica is not None:
            replica.begin_to_stop()

    def forget(self, slot: Slot) -> None:
        """Drop a dead slot."""
        del self._slots[slot]
        own = self._by_version[slot.model_id]
        del own[slot]
        if not own:
            del self._by_version[slot.model_id]
        self._touched.add(slot)

    def _add(self, status: SlotStatus) -> SlotStatus:
        self._slots[status.slot] = status
        self._by_version.setdefault(status.slot.model_id, {})[status.slot] = status
        self._touched.add(status.slot)
        return status

    def _has_changed(self, slot: Slot) -> None:
        self._touched.add(slot)
        self._on_change()

    async def stop_all(self) -> None:
        """Stop all containers at once; return when they are gone."""
        for slot in self._slots:
            self.stop(slot)
        tasks = [status.task for status in self._slots.values() if status.task]
        if tasks:
            await asyncio.wait(tasks)
        for slot in list(self._slots):
            self.forget(slot)

    def _watch(self, status: SlotStatus, replica: Replica, start_timeout_s: float) -> None:
        status.task = asyncio.get_running_loop().create_task(self._live(status, replica, start_timeout_s))

    async def _live(self, status: SlotStatus, replica: Replica, start_timeout_s: float) -> None:
        model_id = status.slot.model_id
        try:
            death = await replica.live(
                start_timeout_s,
                lambda: self._batch_timeout_s(model_id),
                self._samples,
                lambda: self._has_changed(status.slot),
            )
        except Exception as error:  # a bug of ours, which counts as a death, too: otherwise the slot would be stuck
            log.exception("watching %(replica)s failed", replica.note.log_fields)
            death = Death(f"watching container {status.slot} failed: {error!r}", 0.0)
        if replica.phase == "stopping":
            log.info("stopped %(replica)s", replica.note.log_fields)
            self.forget(status.slot)
            self._on_change()
        else:
            self._has_died(status, death)

    def _has_died(self, status: SlotStatus, death: Death) -> None:
        log.warning("%(reason)s", {**status.slot.log_fields, "reason": death.reason})
        was_ready = status.replica is not None and status.replica.phase == "ready"
        # A warm-up batch can be larger than any batch of queries: a model that dies of it has not failed its start.
        is_spared = death.warm_up_rows > 0 and self._samples.has_killed(status.slot.model_id, death.warm_up_rows)
        status.replica = status.task = None
        status.last_error = death.reason
        status.start_failure = None if was_ready or is_spared or death.is_of_node else death
        status.history = status.history.died(asyncio.get_running_loop().time(), death.uptime_s)
        self._has_changed(status.slot)

    def _why_not(self, manager: ManagerName) -> str:
        if self._has_workers_elsewhere and manager in ("local", "docker"):
            return (
                f"manager {manager!r} runs models on the server's machine, and query workers on the cluster's nodes "
                "cannot reach them there: expected manager 'ray', or a server without --workers-per-node"
            )
        return f"manager {manager!r} is not installed where the server runs: pip install 'clipper-serving[{manager}]'"

    def _new_replica(self, slot: Slot, spec: VersionSpec) -> Replica:
        launcher = self._launchers.get(spec.manager)
        if launcher is None:
            raise Unavailable(self._why_not(spec.manager))
        number = self._next_number()
        address = launcher.choose_address(number)
        note = ContainerNote(
            *(slot.model, slot.version, slot.index, number, address, spec),
            build=self._build,
            log_format=self._log_format,
            max_output_bytes=self._max_output_bytes,
            known_type=self._samples.known_type(slot.model_id),
        )
        starts = None if spec.manager in ELSEWHERE else self._starts
        return Replica(note, launcher, self.log_path(slot), starts=starts, variables=self._variables(spec))

    def _variables(self, spec: VersionSpec) -> dict[str, str]:
        """Return a version's own variables. Raises ClipperError if a secret cannot be had."""
        secrets = self.secret_values(spec.secrets)
        return {**spec.env, **secrets, **({SECRETS_VARIABLE: ",".join(secrets)} if secrets else {})}

    def _known_variables(self, spec: VersionSpec) -> dict[str, str]:
        """Return the variables of a container that runs already; none if its secrets are gone by now."""
        try:
            return self._variables(spec)
        except ClipperError:
            return {}
