"""Everything that an operator can ask for: implements ``api.server.operations.Operations``."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipper import __version__
from clipper.api import schemas
from clipper.api.events import Events, Kind, Step
from clipper.api.server.operations import CALLER, Call
from clipper.control.statistics import WorkerStatistics
from clipper.errors import NotFound
from clipper.settings.application import Link
from clipper.settings.fields import check_range
from clipper.settings.home import CERTIFICATE_NAME, Place, lock_path
from clipper.settings.server import ReadyWhen
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.managers.launcher import WAITING_FOR_ROOM
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.operations.applications import ApplicationOperations
from clipper.supervisor.operations.keys import KeyOperations
from clipper.supervisor.operations.models import ModelOperations, logs_of
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.queries import Queries
from clipper.supervisor.operations.reports import ReportOperations, SeriesOperations
from clipper.supervisor.operations.scrapes import Scrapes
from clipper.supervisor.operations.tokens import expiry_problems, next_expiry
from clipper.supervisor.operations.views import worker_view
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.stop_requests import StopRequests
from clipper.values.types import CPU, ModelId


@dataclass(frozen=True, slots=True)
class _Trouble:
    """An application with a model that cannot be asked. ``is_answered``: whether other models can."""

    text: str
    is_answered: bool


class SupervisorOperations(ApplicationOperations, ModelOperations, ReportOperations, SeriesOperations, KeyOperations):
    """All operations; see ``api.server.operations.Operations`` for each call."""

    def __init__(
        self,
        parts: Parts,
        home: str,
        place: Place,
        stopping: StopRequests,
        options: dict[str, schemas.OptionStatus],
        ready_when: ReadyWhen = "any",
    ) -> None:
        super().__init__(parts)
        self._home = home
        self._logs = Path(home) / "logs"
        self._place = place
        self._options = options
        self._needs_all = ready_when == "all"
        self._started_s = time.monotonic()
        self._stopping = stopping
        self._scrapes = Scrapes(parts, self._status)
        self._queries = Queries(place.query_url, Path(home) / CERTIFICATE_NAME)

    async def status(self) -> schemas.Status:
        return await self._status(await self._workers.statistics((), ()))

    async def _status(self, workers: Sequence[WorkerStatistics]) -> schemas.Status:
        of_server, troubles = self._problems_of_server(), self._troubles()
        replicas = self._views.replicas()
        parts, certificates = self._parts, self._parts.certificates
        return schemas.Status(
            version=__version__,
            pid=os.getpid(),
            home=self._home,
            query_url=self._place.query_url,
            management_url=self._place.management_url,
            grpc_address=self._place.grpc_address,
            uptime_s=time.monotonic() - self._started_s,
            ready=not self._why_not_ready(of_server, troubles),
            stopping=self._stopping.is_requested,
            problems=(
                *of_server,
                *(trouble.text for trouble in troubles),
                *self._problem_of_home(),
                *(parts.leadership.problems() if parts.leadership is not None else ()),
                *(parts.nodes.problems() if parts.nodes is not None else ()),
                *parts.disks.problems(),
                *parts.sampling.health.problems(),
                *self._catalog.problems(),
                *parts.keepers.problems(),
                *self._ramps.problems(),
                *parts.events.problems(),
                *(certificates.problems(time.time()) if certificates is not None else ()),
                *expiry_problems(self._catalog.keys.values(), self._catalog.tokens.values(), time.time()),
                *self._reconciler.outdated(),
                *problems_of_failed(self._catalog.versions.values()),
                *problems_of_replicas(self._manager.slots()),
                *self._unknown_versions(),
                *_problems_of_workers(workers),
            ),
            workers=tuple(map(worker_view, self._workers)),
            applications=len(self._catalog.applications),
            applications_ready=len(self._catalog.applications) - sum(not one.is_answered for one in troubles),
            models=len(self._catalog.models),
            replicas=dict(Counter(replica.state for replica in replicas)),
            manager=parts.default_manager,
            nodes=by_node(replicas),
            certificate_expires_at=certificates.expires_at if certificates is not None else None,
            client_ca_expires_at=certificates.client_ca_expires_at if certificates is not None else None,
            credential_expires_at=next_expiry(
                (*self._catalog.keys.values(), *self._catalog.tokens.values()), time.time()
            ),
            lease=parts.leadership.status() if parts.leadership is not None else None,
            options=self._options,
            disks=tuple(schemas.DiskStatus(disk.path, disk.free_bytes, disk.size_bytes) for disk in parts.disks.facts),
            gpus=tuple(
                schemas.GpuStatus(gpu.id, gpu.memory_bytes or None, gpu.used_bytes, gpu.utilization)
                for gpu in parts.gpus.latest()
            ),
        )

    async def history(self) -> list[Step]:
        return list(self._reconciler.story.steps)

    async def events(
        self, after: int | None, limit: int, kind: Kind | None, subject: str | None, who: str | None
    ) -> Events:
        return self._parts.events.log.find(after, limit, kind, subject, who)

    async def server_logs(self, name: str | None, lines: int, after: Mapping[str, str]) -> schemas.Logs:
        check_range("lines", lines, 1, schemas.MAX_LOG_LINES)
        # Containers' logs are in the same folder; their names have an @.
        paths = {path.stem: path for path in sorted(self._logs.glob("*.log")) if "@" not in path.stem}
        on_nodes = {} if self._parts.nodes is None else await self._parts.nodes.logs(name, after, lines)
        if name is not None:
            if name not in paths and name not in on_nodes:
                known = [*paths, *(worker.name for worker in self._workers if worker.node)]
                raise NotFound(f"the server has no log {name!r:.100}: expected one of {', '.join(known)}")
            paths = {one: path for one, path in paths.items() if one == name}
        here = {one: path for one, path in paths.items() if one not in on_nodes}
        return await asyncio.to_thread(logs_of, here, after, lines, on_nodes)

    async def has_artifact(self, digest: str) -> bool:
        return self._artifacts.renew(digest)

    async def add_artifact(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        return await self._artifacts.add(digest, chunks)

    async def ask(self, application: str, call: Call, body: bytes, key: str | None) -> tuple[int, bytes]:
        return await self._queries.ask(application, call, body, key)

    async def list_tokens(self) -> list[schemas.Token]:
        return self._parts.tokens.list_all()

    async def create_token(self, new: schemas.NewToken) -> schemas.CreatedToken:
        return self._parts.tokens.create(new)

    async def revoke_token(self, name: str) -> None:
        self._parts.tokens.revoke(name)

    async def metrics(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        return await self._scrapes.text(by_worker, applications, models)

    async def problems(self) -> list[str]:
        """Return why not every model of every application can be asked; empty if all can."""
        return [*self._problems_of_server(), *(trouble.text for trouble in self._troubles())]

    async def why_not_ready(self) -> list[str]:
        return self._why_not_ready(self._problems_of_server(), self._troubles())

    def _why_not_ready(self, of_server: list[str], troubles: Sequence["_Trouble"]) -> list[str]:
        """Return why the server is not ready, by the rule of the query workers: ``frontend.readiness``."""
        unanswered = [trouble.text for trouble in troubles if not trouble.is_answered]
        counts = self._needs_all or len(unanswered) == len(self._catalog.applications)
        return [*of_server, *(unanswered if counts else ())]

    def _problems_of_server(self) -> list[str]:
        problems = []
        if self._stopping.is_requested:
            problems.append("the server is stopping: it answers queries until it drains, and balancers should leave it")
        if not self._workers.any_ready:
            errors = [worker.last_error for worker in self._workers if worker.last_error]
            problems.append(f"no query worker is ready{': ' + errors[0] if errors else ' yet'}")
        return problems

    def _troubles(self) -> list["_Trouble"]:
        """List a problem for each application of which a model cannot be asked."""
        left_out = self._reconciler.servable.left_out
        troubles = [
            _Trouble(f"application {name!r} is not served: {why}; change it, or delete it", False)
            for name, why in left_out.items()
        ]
        told = self._reconciler.told()
        for application in self._catalog.applications.values():
            # A shadow never answers, so no query misses it.
            asked = [link for link in application.links if not link.shadow]
            texts = [text for link in asked if (text := self._trouble_with(link, told))]
            if texts and application.name not in left_out:
                text = f"application {application.name!r}: {'; '.join(texts)}"
                troubles.append(_Trouble(text, is_answered=len(texts) < len(asked)))
        return troubles

    async def stop(self) -> schemas.Stopping:
        if not self._stopping.is_requested:
            self._parts.events.record([NewEvent("server", "server", "the server is told to stop", by=CALLER.get())])
        self._stopping.request()
        return schemas.Stopping(drain_delay_s=self._stopping.drain_delay_s)

    def _problem_of_home(self) -> list[str]:
        """Return the problem of a home that is gone: workers go on without it, so nothing else would say so."""
        if lock_path(Path(self._home)).exists():
            return []
        return [
            f"its home {self._home} is gone: workers answer queries, but nothing can be changed, stored or started: "
            "put it back where it was"
        ]

    def _unknown_versions(self) -> list[str]:
        """Return a problem for each running version of which nobody knows whether it can answer."""
        records = (self._catalog.versions[id_] for id_ in self._catalog.running())
        return [f"{one.id}: {one.unknown}" for one in records if one.state == "ready" and one.unknown is not None]

    def _trouble_with(self, link: Link, told: Callable[[str], bool]) -> str | None:
        version = link.version or self._catalog.model(link.model).current
        if version is None:
            return f"model {link.model!r} has no version that is ready"
        record = self._catalog.version(link.model, version)
        if record.state == "failed":
            return f"{record.id} has failed: {_why_failed(record)}"
        if record.loads_with is not None:
            return f"{record.id} is unloaded: clipper model scale {link.model} 1 loads it again"
        if record.replicas_wanted == 0:
            return None  # it is asleep, and wakes with the first query
        slots = self._manager.slots(ModelId(link.model, version))
        addresses = [one.replica.address for one in slots if one.phase == "ready" and one.replica is not None]
        if any(address is not None and told(address.id) for address in addresses):
            return None
        errors = [slot.last_error for slot in slots if slot.last_error]
        return f"{link.model}:{version} has no replica that is ready{': ' + errors[0] if errors else ' yet'}"


def by_node(replicas: Sequence[schemas.Replica]) -> dict[str, dict[str, int]]:
    """Count the replicas of each state on each node of a cluster."""
    nodes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for replica in replicas:
        if replica.node is not None:
            nodes[replica.node][replica.state] += 1
    return {node: dict(states) for node, states in nodes.items()}


def problems_of_failed(versions: Iterable[VersionRecord]) -> list[str]:
    """Return a problem for each model that cannot be asked because all of its versions have failed."""
    by_model: defaultdict[str, list[VersionRecord]] = defaultdict(list)
    for record in versions:
        by_model[record.model].append(record)
    problems = []
    for model, those in by_model.items():
        if all(record.state == "failed" for record in those):
            last = max(those, key=lambda record: record.created_at)
            problems.append(
                f"model {model!r} has no version that starts; {last.id} has failed: {_why_failed(last)}; see clipper "
                f"logs {last.id}, and deploy a mended version, or remove the model: clipper model delete {model}"
            )
    return problems


def _why_failed(record: VersionRecord) -> str:
    """Return the reason as a single line: an installer's has several."""
    return " ".join((record.last_error or "it cannot be started").split())


def problems_of_replicas(slots: Sequence[SlotStatus]) -> list[str]:
    """Return the problems of versions that leave their GPUs idle, that have no room, or of which some replicas crash.

    If all crash, that is a problem of applications.
    """
    by_version: defaultdict[ModelId, list[SlotStatus]] = defaultdict(list)
    for slot in slots:
        by_version[slot.slot.model_id].append(slot)
    problems = []
    for id_, those in by_version.items():
        crashing = [one for one in those if one.is_looping]
        welcomes = [one.replica.welcome for one in those if one.replica is not None]
        if any(welcome is not None and welcome.device == CPU for welcome in welcomes):
            problems.append(f"{id_}: GPUs are reserved for it (--gpus), but it computes on the processor")
        if crashing and any(one.phase == "ready" for one in those):
            why = f": {crashing[0].last_error}" if crashing[0].last_error else ""
            problems.append(f"{id_}: {len(crashing)} of its {len(those)} replicas crash each time they start{why}")
        texts = [one.replica.progress or "" for one in those if one.replica is not None]
        if waiting := [text for text in texts if text.startswith(WAITING_FOR_ROOM)]:
            problems.append(f"{id_}: {len(waiting)} of its {len(those)} replicas are {waiting[0]}")
    return problems


def _problems_of_workers(statistics: Sequence[WorkerStatistics]) -> list[str]:
    """Return the problems that workers report. Queries are still answered; with a failing policy by the default."""
    problems = []
    for worker in statistics:
        name = f"worker {worker.index}"
        if worker.decisions is not None and worker.decisions.problem is not None:
            problems.append(f"{name} cannot write the decision log: {worker.decisions.problem}")
        if worker.telemetry is not None:
            problems += [f"{name} {problem}" for problem in worker.telemetry.problems]
        if worker.store_problem is not None:
            problems.append(f"{name} refuses feedback, since it cannot be stored: {worker.store_problem}")
        problems += [f"application {app!r}, in {name}: {why}" for app, why in worker.policy_problems.items()]
    return problems
