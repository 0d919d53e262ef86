"""The management API's port, kept in memory: what its routes, the client and the commands are tested against.

A deployed version is ``starting`` until it is asked for twice. A version of the model ``broken`` fails.
"""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from clipper.api.events import Events, Kind, Step
from clipper.api.reports import BatchTime, Bounds, Report, ReportedModel, ReportGroup, StepModel, StepReport
from clipper.api.schemas import (
    Application,
    Contexts,
    CreatedKey,
    CreatedToken,
    GpuStatus,
    Key,
    LearnedPolicy,
    LeaseStatus,
    LinkChange,
    Logs,
    Model,
    NewKey,
    NewToken,
    Replica,
    Status,
    Stopping,
    Token,
    Version,
    WorkerState,
    WorkerStatus,
)
from clipper.api.series import Named, Series, SeriesOverview
from clipper.api.server.operations import Call
from clipper.cli.manifest.plan import fingerprint
from clipper.control.descriptions import ConfidenceBin, ModelDescription, Reliability
from clipper.control.statistics import CacheStatistics, WorkerStatistics
from clipper.errors import ClipperError, Conflict, ContainerFailed, InvalidArgument, NotFound
from clipper.settings.application import ApplicationChange, Configured, Link, NewApplication, Selection
from clipper.settings.fields import shared
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Deployment
from clipper.supervisor.history.event_log import EventLog, NewEvent
from clipper.supervisor.metrics.ledger import Existing, Ledger, Shown, WorkerFacts
from clipper.supervisor.operations.views import condition_of
from clipper.values.types import check_name

LOG_TAIL = ("Traceback (most recent call last):", "ModuleNotFoundError: No module named 'left_pad'")


CALIBRATION = Reliability(
    "svm",
    "probability",
    (ConfidenceBin(4.0, 0.75, 0.5, 0.6), ConfidenceBin(8.0, 0.99, 0.75, 0.8), ConfidenceBin(0.02, 1.0, 1.0, 0.9)),
    (ConfidenceBin(12.0, 0.7, 0.6667),),
    0.24,
    0.033,
)


class MemoryOperations:
    """``url`` and ``home`` are what ``status`` tells."""

    def __init__(self) -> None:
        self.url = ""
        self.home = ""
        self.pid = os.getpid()
        self.worker_state: WorkerState = "ready"
        self.further_workers: tuple[WorkerStatus, ...] = ()
        self.causes: list[str] = []
        self.replica_states: dict[str, int] = {}
        self.lease: LeaseStatus | None = None
        self.gpus: tuple[GpuStatus, ...] = ()
        self.raises: Exception | None = None
        self.stopped = self.stopping = False
        self.artifacts: dict[str, int] = {}
        self.largest_chunk_bytes = 0
        self.upload_errors: list[str] = []
        self.applications: dict[str, Application] = {}
        self.contexts: list[str] = []
        self.checked: list[Deployment] = []
        self.versions: dict[str, dict[str, Version]] = {}
        self.deployments: list[Deployment] = []
        self.made: dict[str, dict[str, Deployment]] = {}
        self.current: dict[str, str | None] = {}
        self.previous: dict[str, str | None] = {}
        self.polls: dict[tuple[str, str], int] = {}
        # Ids of replicas that could not be started.
        self.without_logs: set[str] = set()
        self.tokens: dict[str, Token] = {}
        self.keys: dict[str, Key] = {}
        self.events_log = EventLog()
        self.observed: list[dict[str, object]] = []
        # How a report compares models, in words.
        self.basis = ""
        # The series of an application, where a test wants others than a few queries.
        self.recorded: dict[str, Named] = {}
        self.asked: list[tuple[str, Call, bytes, str | None]] = []

    async def history(self) -> list[Step]:
        return [Step(1e9, "m:1", "it is ready and current"), Step(1e9 + 1.5, "worker-0", "is drained: it [is] old")]

    def happen(self, *new: NewEvent) -> None:
        for event in new:
            self.events_log.add(event, 0.0, 1e9)

    async def events(
        self, after: int | None, limit: int, kind: Kind | None, subject: str | None, who: str | None
    ) -> Events:
        if self.raises is not None:
            raise self.raises
        return self.events_log.find(after, limit, kind, subject, who)

    async def series_overview(self) -> SeriesOverview:
        rate: Named = {"rate": (None, 2.5)}
        applications: dict[str, Named] = {name: self.recorded.get(name, rate) for name in self.applications}
        models: dict[str, Named] = {name: {"rate": (1.5, None, 3.5)} for name in self.versions}
        return SeriesOverview(2.0, 1e9, applications, models, {"0": {"cpu_share": (0.25,)}}, 0)

    async def application_series(self, name: str, seconds: int) -> Series:
        await self.get_application(name)
        return Series(2.0, 1e9, self.recorded.get(name, {"rate": (None, float("nan"), 2.5)[: seconds // 2]}))

    async def model_series(self, name: str, seconds: int) -> Series:
        await self.get_model(name)
        return Series(2.0, 1e9, {"rate": (1.0,)}, left_out=True)

    async def status(self) -> Status:
        if self.raises is not None:
            raise self.raises
        return Status(
            version="0.1.0",
            pid=self.pid,
            home=self.home,
            query_url=self.url + "/query",
            management_url=self.url,
            uptime_s=1.5,
            ready=not self.causes,
            stopping=self.stopping,
            problems=tuple(self.causes),
            workers=(WorkerStatus(0, os.getpid(), self.worker_state, 0, 1, None), *self.further_workers),
            applications=len(self.applications),
            models=len(self.versions),
            replicas=self.replica_states or {"ready": len(await self.list_replicas(None))},
            lease=self.lease,
            gpus=self.gpus,
        )

    async def has_artifact(self, digest: str) -> bool:
        return digest in self.artifacts

    async def add_artifact(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        is_new = digest not in self.artifacts
        hashed, size_bytes = hashlib.sha256(), 0
        try:
            async for chunk in chunks:
                hashed.update(chunk)
                size_bytes += len(chunk)
                self.largest_chunk_bytes = max(self.largest_chunk_bytes, len(chunk))
        except ClipperError as error:
            self.upload_errors.append(error.code)
            raise
        if hashed.hexdigest() != digest:
            raise InvalidArgument(f"artifact has digest {hashed.hexdigest()}, expected {digest}")
        self.artifacts[digest] = size_bytes
        return is_new

    async def list_applications(self) -> list[Application]:
        return list(self.applications.values())

    async def get_application(self, name: str) -> Application:
        if name not in self.applications:
            raise NotFound(f"no application {name!r}")
        return self.applications[name]

    async def check_application(self, new: NewApplication) -> None:
        check_name("application", new.name)

    async def check_deployment(self, deployment: Deployment) -> None:
        self.checked.append(deployment)

    async def create_application(self, new: NewApplication) -> Application:
        check_name("application", new.name)
        if new.name in self.applications:
            raise Conflict(f"application {new.name!r} exists")
        made = Application(
            name=new.name,
            input_type=new.input_type or "float64[*]",
            slo_ms=new.slo_ms,
            policy=_configured(new.policy),
            links=new.links,
            default_output=new.default_output,
            loss=_configured(new.loss),
            half_life=Selection().half_life if new.half_life is UNSET else new.half_life,
            prior_weight=new.prior_weight,
            inherit=new.inherit,
            ramp=new.ramp,
            max_loss_increase=new.max_loss_increase,
            wait=new.wait,
            confidence_threshold=new.confidence_threshold,
            feedback_ttl_s=new.feedback_ttl_s,
            log_decisions=new.log_decisions,
            confidence_from=new.confidence_from,
            calibrate=new.calibrate,
            features=new.features,
            code=new.code,
            cost_weight=new.cost_weight,
            max_cost_per_query=new.max_cost_per_query,
            min_quality=new.min_quality,
        )
        self.applications[new.name] = made
        return made

    async def change_application(self, name: str, change: ApplicationChange) -> Application:
        old = await self.get_application(name)
        changed = {
            field: value for field, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET
        }
        for field in ("policy", "loss"):
            if field in changed:
                changed[field] = _configured(changed[field])
        if changed.get("ramp", 0.0) is None:
            changed["newcomers"] = ()  # they are let in
        self.applications[name] = msgspec.structs.replace(old, **changed)
        return self.applications[name]

    async def delete_application(self, name: str) -> None:
        await self.get_application(name)
        del self.applications[name]

    async def describe_policy(self, name: str, context: str | None) -> LearnedPolicy:
        found = await self.get_application(name)
        models = tuple(
            ModelDescription(
                link.model,
                0.0 if link.shadow else 0.75,
                None if link.shadow else 0.25,
                8.0,
                4.0,
                link.shadow,
                cost=link.cost,
                threshold=0.85 if found.policy.name == "cascade" and link is found.links[0] else None,
            )
            for link in found.links
        )
        policy = found.policy
        calibration = (CALIBRATION,) if found.calibrate else ()
        mean_cost, stages = (4.5, (0.125,)) if policy.name == "cascade" else (None, ())
        return LearnedPolicy(
            policy.name,
            policy.parameters,
            found.loss.name,
            context,
            12.0,
            models,
            found.problem,
            calibration,
            mean_cost=mean_cost,
            stages=stages,
        )

    async def report(
        self,
        name: str,
        confidence: float | None,
        tolerance: float | None,
        context: str | None,
        by_context: bool,
    ) -> Report:
        found = await self.get_application(name)
        ends, contexts = Bounds(0.1, 0.3), [context, *(self.contexts if by_context else [])]
        models = tuple(
            ReportedModel(each.model, "1", True, each.shadow, 0.5, 100.0, 0.2, ends, ends, 0.5, 50.0, 9, 1, None)
            for each in found.links
        )
        group = [ReportGroup(each, 100.0, "open", "m", 0.5, 50.0, 25.0, models, basis=self.basis) for each in contexts]
        limits = 0.95 if confidence is None else confidence, 0.01 if tolerance is None else tolerance
        head = found.policy.name, found.loss.name, *limits, 0.0, found.slo_ms, 2.0
        batches = {1: BatchTime(90, 4.0), 8: BatchTime(10, 11.0)}
        versions = tuple(StepModel(each.model, "1", 100, 1.0, 1, None, False, batches) for each in found.links)
        asked = {step: each.application or f"{name}.{step}" for step, each in found.steps.items()} or {name: name}
        steps = tuple(StepReport(*each, 100, {}, {}, None, versions) for each in asked.items())
        return Report(name, *head, 10, {}, {}, 0, None, tuple(group), steps=steps)

    async def list_contexts(self, name: str, limit: int) -> Contexts:
        await self.get_application(name)
        return Contexts(len(self.contexts), tuple(self.contexts[:limit]))

    async def delete_context(self, name: str, context: str) -> None:
        await self.get_application(name)
        if context not in self.contexts:
            raise NotFound(f"nothing was learned in context {context!r}")
        self.contexts.remove(context)

    async def link(self, application: str, model: str, change: LinkChange) -> Application:
        old = await self.get_application(application)
        link = Link(model, change.version, change.shadow, change.cost)
        self.applications[application] = msgspec.structs.replace(old, links=(link,))
        return self.applications[application]

    async def unlink(self, application: str, model: str) -> Application:
        old = await self.get_application(application)
        links = tuple(link for link in old.links if link.model != model)
        self.applications[application] = msgspec.structs.replace(old, links=links)
        return self.applications[application]

    async def list_models(self, names: Sequence[str] | None) -> list[Model]:
        return [await self.get_model(name) for name in self.versions if names is None or name in names]

    async def get_model(self, name: str) -> Model:
        versions = self._versions(name)
        shown = tuple(self._shown(version) for version in versions.values())
        return Model(name, self.current.get(name), self.previous.get(name), shown)

    async def delete_model(self, name: str) -> None:
        self._versions(name)
        if any(link.model == name for app in self.applications.values() for link in app.links):
            raise Conflict(f"model {name!r} is linked")
        del self.versions[name]

    async def deploy(self, model: str, deployment: Deployment) -> Version:
        check_name("model", model)
        if deployment.artifact not in self.artifacts:
            raise NotFound(f"no artifact {deployment.artifact}")
        versions = self.versions.setdefault(model, {})
        name = deployment.version or str(len(versions) + 1)
        if name in versions:
            raise Conflict(f"version {model}:{name} exists")
        self.deployments.append(deployment)
        manager = deployment.manager or "local"
        self.made.setdefault(model, {})[name] = msgspec.structs.replace(deployment, version=name, manager=manager)
        versions[name] = Version(
            model=model,
            version=name,
            state="starting",
            current=False,
            input_type=deployment.input_type or "float64[4]",
            runtime="python 3.11",
            batching=deployment.batching,
            cache=deployment.cache,
            replicas_wanted=_least(deployment.replicas),
            replicas=self._replicas(model, name, _least(deployment.replicas)),
            scaling=_range(deployment.replicas),
            created_at=time.time(),
            description=deployment.description,
            warning="the model is older than its library" if model == "aged" else None,
        )
        if deployment.make_current:
            self.previous[model], self.current[model] = self.current.get(model), name
        return self._shown(versions[name])

    async def load(self, application: str) -> None:
        await self.get_application(application)

    async def unload(self, application: str) -> None:
        await self.get_application(application)

    async def get_version(self, model: str, version: str) -> Version:
        found = self._version(model, version)
        polls = self.polls[model, version] = self.polls.get((model, version), 0) + 1
        if found.state == "starting" and polls > 1:
            found = self._settle(found)
        elif found.state == "starting" and model == "built":
            found = msgspec.structs.replace(found, progress="installing 12 packages")
        return self._shown(found)

    async def list_deployments(self, model: str) -> dict[str, Deployment]:
        self._versions(model)
        return dict(self.made[model])

    async def delete_version(self, model: str, version: str) -> None:
        self._version(model, version)
        if self.current.get(model) == version:
            raise Conflict(f"version {model}:{version} is current")
        del self.versions[model][version]

    async def rollback(self, model: str, version: str | None, allow_stopped: bool) -> Model:
        to = version or self.previous.get(model)
        if to is None:
            raise Conflict(f"model {model!r} has no previous version")
        if model == "broken":
            raise ContainerFailed("broken:1 cannot start: its process exited with 1", list(LOG_TAIL))
        if (why := self._version(model, to).stopped) and not allow_stopped:
            raise Conflict(f"version {to!r} of model {model!r} was stopped ({why})")
        self.previous[model], self.current[model] = self.current[model], to
        return await self.get_model(model)

    async def scale(self, model: str, replicas: int | ReplicaRange, version: str | None) -> Version:
        name, wanted = version or self.current.get(model) or "", _least(replicas)
        if wanted < 1:
            raise InvalidArgument(f"replicas is {replicas}: expected at least 1")
        old = self._version(model, name)
        self.versions[model][name] = msgspec.structs.replace(
            old,
            replicas_wanted=wanted,
            replicas=self._replicas(model, name, wanted),
            scaling=_range(replicas),
            scaling_reason="80 queries/s expected" if _range(replicas) else None,
        )
        return self._shown(self.versions[model][name])

    async def logs(
        self, model: str, version: str | None, replica: str | None, lines: int, after: Mapping[str, str]
    ) -> Logs:
        names = [r.id for v in self._versions(model).values() for r in v.replicas if version in (None, v.version)]
        if replica in self.without_logs:
            raise NotFound(f"model {model!r} has no log of replica {replica!r}")
        return _logs([name for name in names if replica in (None, name)], lines, after)

    async def server_logs(self, name: str | None, lines: int, after: Mapping[str, str]) -> Logs:
        return _logs([each for each in ("supervisor", "worker-0") if name in (None, each)], lines, after)

    async def list_replicas(self, models: Sequence[str] | None) -> list[Replica]:
        versions = [each for of in self.versions.values() for each in of.values()]
        return [one for each in versions for one in each.replicas if models is None or one.model in models]

    async def get_replica(self, replica_id: str) -> Replica:
        for replica in await self.list_replicas(None):
            if replica.id == replica_id:
                return replica
        raise NotFound(f"no replica {replica_id!r}")

    async def list_tokens(self) -> list[Token]:
        return list(self.tokens.values())

    async def create_token(self, new: NewToken) -> CreatedToken:
        if new.name in self.tokens:
            raise Conflict(f"token {new.name!r} exists")
        self.tokens[new.name] = Token(new.name, new.role, 1_700_000_000.0, new.expires_at)
        return CreatedToken(new.name, new.role, 1_700_000_000.0, new.expires_at, token=f"clipper_of_{new.name}")

    async def revoke_token(self, name: str) -> None:
        if name not in self.tokens:
            raise NotFound(f"no token {name!r}")
        del self.tokens[name]

    async def list_keys(self) -> list[Key]:
        return list(self.keys.values())

    async def create_key(self, new: NewKey) -> CreatedKey:
        if new.name in self.keys and not new.replace:
            raise Conflict(f"key {new.name!r} exists")
        key = new.key or f"clipperkey_{new.name}"
        facts = {"created_at": 1_700_000_000.0, "fingerprint": fingerprint(key)} | shared(new, Key)
        facts["expires_at"] = None if isinstance(new.expires_at, UnsetType) else new.expires_at
        self.keys[new.name] = Key(**facts)
        return CreatedKey(**facts, key=key)

    async def revoke_key(self, name: str) -> None:
        if name not in self.keys:
            raise NotFound(f"no key {name!r}")
        del self.keys[name]

    async def metrics(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        worker = WorkerStatistics(0, os.getpid(), 1, 0, {}, (), (), (), CacheStatistics(0, 0, 1024, 0))
        ledger, names = Ledger(), tuple(applications or ())
        ledger.follow(Existing({1: WorkerFacts(0)}, dict.fromkeys(names)))
        ledger.take(1, worker)
        return ledger.text(Shown(names, status=await self.status()), {1: worker}, by_worker=by_worker)

    async def why_not_ready(self) -> list[str]:
        return self.causes

    async def stop(self) -> Stopping:
        self.stopped = True
        return Stopping()

    async def ask(self, application: str, call: Call, body: bytes, key: str | None) -> tuple[int, bytes]:
        self.asked.append((application, call, body, key))
        answer = (
            self.predict(application) if call == "predict" else self.observe(application, msgspec.json.decode(body))
        )
        return 200, msgspec.json.encode(answer)

    def predict(self, application: str) -> object:
        """An answer in place of the query API's; only its errors and its form matter here."""
        if application not in self.applications:
            raise NotFound(f"no application {application!r}")
        return {"query_id": 1, "output": 7, "default": False, "confidence": 1.0}

    def observe(self, application: str, body: dict[str, object]) -> object:
        """An answer in place of the query API's: a query id of 404 is unknown, and of 2 has had its feedback."""
        self.predict(application)
        self.observed.append(body)
        if body.get("query_id") == 404:
            raise NotFound("query 404 is not known")
        return {"observed": True, "duplicate": body.get("query_id") == 2}

    def _versions(self, model: str) -> dict[str, Version]:
        if model not in self.versions:
            raise NotFound(f"no model {model!r}")
        return self.versions[model]

    def _version(self, model: str, version: str) -> Version:
        versions = self._versions(model)
        if version not in versions:
            raise NotFound(f"no version {model}:{version}")
        return versions[version]

    def _shown(self, version: Version) -> Version:
        return msgspec.structs.replace(
            version,
            current=self.current.get(version.model) == version.version,
            condition=condition_of(version.state, [replica.state for replica in version.replicas]),
        )

    def _settle(self, version: Version) -> Version:
        if version.model == "broken":
            settled = msgspec.structs.replace(
                version, state="failed", last_error="its process exited with 1", log_tail=LOG_TAIL, replicas=()
            )
        else:
            replicas = tuple(msgspec.structs.replace(replica, state="ready") for replica in version.replicas)
            settled = msgspec.structs.replace(version, state="ready", replicas=replicas)
        self.versions[version.model][version.version] = settled
        return settled

    def _replicas(self, model: str, version: str, count: int) -> tuple[Replica, ...]:
        return tuple(
            Replica(
                f"{model}:{version}#{n}", model, version, "ready", os.getpid(), 0, None, 8, f"{model}-{version}-{n}.log"
            )
            for n in range(1, count + 1)
        )


def _least(replicas: int | ReplicaRange) -> int:
    return replicas.min if isinstance(replicas, ReplicaRange) else replicas


def _range(replicas: int | ReplicaRange) -> ReplicaRange | None:
    return replicas if isinstance(replicas, ReplicaRange) else None


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def _logs(names: list[str], lines: int, after: Mapping[str, str]) -> Logs:
    """Each has ``LOG_TAIL``, and the number of its lines as its place."""
    found = {name: LOG_TAIL[int(after.get(name, 0)) :][-lines:] for name in names}
    return Logs(found, dict.fromkeys(names, str(len(LOG_TAIL))))
