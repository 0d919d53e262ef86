"""The operations on models and their versions."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from clipper.api.schemas import MAX_LOG_LINES, Logs, Model, Replica, Version
from clipper.api.server.operations import CALLER
from clipper.base.masking import masked
from clipper.errors import ClipperError, Conflict, ContainerFailed, InvalidArgument, NotFound, Unavailable
from clipper.settings.fields import check_range, check_ranges, shared
from clipper.settings.replicas import ReplicaRange, check_replicas
from clipper.settings.variables import check_variables, resolved
from clipper.settings.version import MOST_START_TIMES, Deployment, VersionSpec
from clipper.supervisor.keepers.samples import read_sample
from clipper.supervisor.managers import logs
from clipper.supervisor.managers.environments.provider import PREPARE_TIMEOUT_S
from clipper.supervisor.managers.shares import parse_gpus
from clipper.supervisor.metrics.totals import replica_name
from clipper.supervisor.operations.parts import OfParts, Parts
from clipper.supervisor.operations.views import Views, deployment_view
from clipper.supervisor.reconciler.reconciler import REACH_TIMEOUT_S
from clipper.supervisor.reconciler.servable import check_json
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Delete, Put
from clipper.supervisor.rollout import newcomers, rollbacks, rules, wanted
from clipper.supervisor.rollout.versions import LINK_TIMEOUT_S
from clipper.values.records import parse_type
from clipper.values.types import ModelId, check_name

# A model file that lists all packages of its author's environment has some hundred needs.
MAX_NEEDS = 1000
# A need is neither an option of the installer nor several lines.
_NEED = re.compile(r"[A-Za-z0-9][ -~]{0,499}")
# A path may be longer on disk; such a model can be packed under a shorter path.
MAX_TEXT_LENGTH = 1000


class ModelOperations(OfParts):
    """The operations on models. Changes return before containers have started or stopped: poll the version."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._views = Views(parts)

    async def list_models(self, names: Sequence[str] | None) -> list[Model]:
        wanted = sorted(self._catalog.models if names is None else self._catalog.models.keys() & set(names))
        return [self._views.model(name) for name in wanted]

    async def get_model(self, name: str) -> Model:
        return self._views.model(name)

    async def get_version(self, model: str, version: str) -> Version:
        return self._views.version(self._catalog.version(model, version))

    async def list_deployments(self, model: str) -> dict[str, Deployment]:
        self._catalog.model(model)
        return {record.version: deployment_view(record) for record in self._catalog.versions_of(model)}

    async def list_replicas(self, models: Sequence[str] | None) -> list[Replica]:
        # Not the catalog's models: replicas of a removed version may still be stopping.
        wanted = None if models is None else set(models)
        return [self._views.replica(one) for one in self._manager.slots() if wanted is None or one.slot.model in wanted]

    async def get_replica(self, replica_id: str) -> Replica:
        for shown in self._views.replicas():
            if shown.id == replica_id:
                return shown
        raise NotFound(f"replica {replica_id!r} does not exist: it may have been restarted under a new id")

    async def deploy(self, model: str, deployment: Deployment) -> Version:
        check_name("model", model, self._catalog.models)
        taken = self._catalog.taken_versions(model)
        version = check_name("version", deployment.version or rules.next_version(taken), taken)
        earlier = self._catalog.versions_of(model) if model in self._catalog.models else []
        deployment = replace(
            deployment,
            manager=deployment.manager or self._parts.default_manager,
            env=resolved(deployment.env, [each.spec.env for each in earlier]),
        )
        before = self._catalog.versions.get(ModelId(model, version))
        if before is not None and before.state != "failed":
            raise Conflict(f"version {version!r} of model {model!r} exists already: deploy under another version")
        self._check(deployment)
        record = self._record(model, version, deployment)
        known = self._catalog.models.get(model)
        self._catalog.commit(*([] if known else [Put(ModelRecord(model))]), Put(record), by=CALLER.get())
        self._reconciler.wake()
        return self._views.version(record)

    async def check_deployment(self, deployment: Deployment) -> None:
        deployment = replace(deployment, manager=deployment.manager or self._parts.default_manager)
        self._check(deployment, is_sent=self._artifacts.renew(deployment.artifact))

    async def rollback(self, model: str, version: str | None, allow_stopped: bool) -> Model:
        """Roll back, within the version's own start timeout and the time for its environment.

        A rollback to the current version cancels versions that wait to take its place.
        """
        target = self._rollback_target(model, version, allow_stopped)
        if target.version == self._catalog.model(model).current:
            if waiting := wanted.cancelled(self._catalog, model):
                self._catalog.commit(*map(Put, waiting), by=CALLER.get())
                self._reconciler.wake()
        else:
            promotion = rules.next_promotion(self._catalog.versions_of(model))
            state = "starting" if target.state == "failed" else target.state
            # A sleeping version wakes first.
            replicas = max(target.replicas_wanted, 1)
            asked = replace(
                target,
                promotion=promotion,
                promoted_by=CALLER.get(),
                state=state,
                replicas_wanted=replicas,
                last_error=None,
                log_tail=(),
                is_new=False,
            )
            self._catalog.commit(Put(asked), by=CALLER.get())
            await self._until_current(target)
        return await self.get_model(model)

    async def scale(self, model: str, replicas: int | ReplicaRange, version: str | None) -> Version:
        record = self._catalog.version(model, version) if version else self._catalog.current_version(model)
        check_replicas(replicas, least=0)
        self._catalog.commit(Put(rules.scaled(record, replicas)), by=CALLER.get())
        self._reconciler.wake()
        return self._views.version(self._catalog.versions[record.id])

    async def load(self, application: str) -> None:
        versions = [each for each in self._running_of(application) if each.loads_with is not None]
        self._catalog.commit(*(Put(rules.loaded(each)) for each in versions), by=CALLER.get())
        self._reconciler.wake()

        def now() -> list[VersionRecord]:
            return [found for each in versions if (found := self._catalog.versions.get(each.id)) is not None]

        def are_up() -> bool:
            return all(each.state == "failed" or self._views.version(each).ready_replicas for each in now())

        timeout_s = max(map(_start_timeout_s, versions), default=0.0)
        if not await self._reconciler.until(are_up, timeout_s):
            raise Unavailable(f"application {application!r} was not loaded in time: see clipper status")
        for each in now():
            if each.state == "failed":
                raise ContainerFailed(each.last_error or f"{each.id} cannot be started", list(each.log_tail))
        await self._reconciler.reach_workers(REACH_TIMEOUT_S)

    async def unload(self, application: str) -> None:
        versions = self._running_of(application)
        linking = {one.name for each in versions for one, _ in self._catalog.linking(each.model)}
        if others := sorted(linking - {application}):
            raise Conflict(f"models of application {application!r} also serve {', '.join(others)}: unlink them there")
        running = [each for each in versions if each.loads_with is None]
        self._catalog.commit(*(Put(rules.scaled(each, 0)) for each in running), by=CALLER.get())
        await self._reconciler.reach_workers(REACH_TIMEOUT_S)

    def _running_of(self, application: str) -> list[VersionRecord]:
        """Return the versions of an application's models that are to run."""
        models = {link.model for link in self._catalog.application(application).links}
        if not models:
            raise Conflict(f"application {application!r} links no model: clipper app link links one")
        return [self._catalog.versions[id_] for id_ in self._catalog.running() if id_.name in models]

    async def delete_model(self, name: str) -> None:
        self._catalog.model(name)
        linking = sorted({application.name for application, _ in self._catalog.linking(name)})
        if linking:
            raise Conflict(f"model {name!r} is linked by {', '.join(linking)}: unlink it there first")
        removed = self._catalog.versions_of(name)
        self._catalog.commit(Delete(ModelRecord, name), by=CALLER.get())
        await self._have_gone(removed)

    async def delete_version(self, model: str, version: str) -> None:
        record, owner = self._catalog.version(model, version), self._catalog.model(model)
        if owner.current == version:
            raise Conflict(f"version {version!r} of model {model!r} is its current one: roll back to another first")
        pinned = sorted(application.name for application, pin in self._catalog.linking(model) if pin == version)
        if pinned:
            raise Conflict(f"version {version!r} of model {model!r} is pinned by {', '.join(pinned)}: unlink it first")
        unnamed = [Put(replace(owner, previous=None))] if owner.previous == version else []
        left = self._catalog.versions.keys() - {record.id}
        changed = [
            Put(after)
            for application in self._catalog.applications.values()
            if (after := newcomers.after_other_change(application, self._catalog.current, left.__contains__))
            is not application
        ]
        self._catalog.commit(*unnamed, *changed, Delete(VersionRecord, str(record.id)), by=CALLER.get())
        await self._have_gone([record])

    async def logs(
        self, model: str, version: str | None, replica: str | None, lines: int, after: Mapping[str, str]
    ) -> Logs:
        check_range("lines", lines, 1, MAX_LOG_LINES)
        self._catalog.model(model)
        if version is not None:
            self._catalog.version(model, version)
        records = [record for record in self._catalog.versions_of(model) if version in (None, record.version)]
        outdated: dict[str, str] = {}
        for causes in await asyncio.gather(*(self._manager.save_logs(record.id) for record in records)):
            outdated |= causes
        paths = {name: path for record in records for name, path in self._manager.log_paths(record.id).items()}
        if replica is not None:
            # A replica's id is its name and the number of its start; all starts share a log.
            paths = {name: path for name, path in paths.items() if name == replica_name(replica)}
            if not paths:
                raise NotFound(f"model {model!r} has no log of replica {replica!r}: expected e.g. {model}:1#1")
        found = await asyncio.to_thread(logs_of, paths, after, lines)
        tell_outdated(found, outdated, after)
        return found if not any(each.spec.secrets for each in records) else self._without_secrets(found, records)

    def _without_secrets(self, found: Logs, records: Sequence[VersionRecord]) -> Logs:
        """Mask secrets in logs. A place also has the last bytes before it, which may be a part of a secret."""
        hidden: set[str] = set()
        for text in {text for each in records for text in each.spec.secrets}:
            with suppress(ClipperError):  # a secret that is gone by now
                hidden.update(self._manager.secret_values((text,)).values())
        lines = {name: tuple(masked(line, hidden) for line in each) for name, each in found.lines.items()}
        return Logs(lines, {name: place.partition(".")[0] + "." for name, place in found.places.items()})

    def _check(self, deployment: Deployment, *, is_sent: bool = True) -> None:
        """Raise RequestError if a value is not valid, or if the artifact was sent and lacks what is named."""
        _check_texts(deployment)
        target = deployment.target if deployment.loader in ("file", "binary") else ""
        for path in (target, deployment.data, deployment.requirements):
            if is_sent and path is not None:
                self._artifacts.check_inside(deployment.artifact, path)
        if deployment.loader == "import" and not all(deployment.target.partition(":")):
            raise InvalidArgument(f"target {deployment.target!r} is not valid: expected module:attribute")
        for field in ("python", "requirements", "needs", "framework", "output"):
            if deployment.loader == "binary" and getattr(deployment, field) not in (None, ()):
                raise InvalidArgument(f"{field} is for models that Clipper's own runtime loads: a program has its own")
        check_range("the number of needs", len(deployment.needs), 0, MAX_NEEDS)
        for need in deployment.needs:
            if not _NEED.fullmatch(need):
                raise InvalidArgument(f"need {need!r} is not valid: expected a requirement, such as name==version")
        self._manager.check(deployment.manager or self._parts.default_manager, deployment)
        _check_framework(deployment)
        if deployment.input_type is not None:
            rules.checked_type(deployment.input_type)
        if deployment.output_type is not None:
            try:
                parse_type(deployment.output_type)
            except InvalidArgument as error:
                raise InvalidArgument(
                    f"output_type is not valid: {str(error).replace('input type', 'type', 1)}"
                ) from error
        check_replicas(deployment.replicas)
        check_ranges(deployment)
        check_variables(deployment.env, deployment.secrets)
        try:
            self._manager.secret_values(deployment.secrets)
        except NotFound as error:
            raise InvalidArgument(str(error)) from error
        sample = _sample_text(deployment.sample)
        if sample is not None and deployment.input_type is not None:  # else only the container knows its type
            read_sample(sample, parse_type(deployment.input_type))

    def _record(self, model: str, version: str, deployment: Deployment) -> VersionRecord:
        declared, outputs = deployment.input_type, deployment.output_type
        promotion = rules.next_promotion(self._catalog.versions_of(model)) if deployment.make_current else None
        known = self._catalog.models.get(model)
        others = self._catalog.state_keys([model])
        spec = VersionSpec(
            **shared(deployment, VersionSpec)
            | {
                "input_type": None if declared is None else str(parse_type(declared)),
                "output_type": None if outputs is None else str(parse_type(outputs)),
                "sample": _sample_text(deployment.sample),
            }
        )
        # A new version begins with as many replicas as the current one.
        in_use = self._catalog.current_version(model).replicas_wanted if known and known.current else 0
        return VersionRecord(
            model=model,
            version=version,
            spec=spec,
            batching=deployment.batching,
            cache=deployment.cache,
            # At least one, to find out whether it runs at all.
            replicas_wanted=max(rules.within(deployment.replicas, in_use), 1),
            created_at=time.time(),
            kept=not deployment.make_current,
            promotion=promotion,
            promoted_by=None if promotion is None else CALLER.get(),
            scaling=deployment.replicas if isinstance(deployment.replicas, ReplicaRange) else None,
            predecessor=known.current if known else None,
            is_new=True,
            state_key=rules.state_key(model, version, spec, others.values()),
            predecessor_state_key=others.get(f"{model}:{known.current}", "") if known else "",
        )

    def _rollback_target(self, model: str, version: str | None, allow_stopped: bool) -> VersionRecord:
        owner = self._catalog.model(model)
        name = version or rollbacks.target(self._catalog, owner)
        if name is None:
            raise Conflict(f"model {model!r} has no version to return to{self._others(owner)}")
        target = self._catalog.version(model, name)
        if target.stopped is not None and not allow_stopped and name != owner.current:
            raise Conflict(
                f"version {name!r} of model {model!r} was stopped ({target.stopped}): deploy a mended version; or, to "
                "let this one answer all the same, confirm it to clipper model rollback --to, or set allow_stopped"
            )
        for application, pinned in self._catalog.linking(model):
            if pinned is None:
                wanted.check_fits(application, target)
        return target

    def _others(self, owner: ModelRecord) -> str:
        """Return why a rollback returns to none of the other versions, and what to do."""
        others = [
            f"version {one.version} " + (f"was stopped ({one.stopped})" if one.stopped else f"is {one.state}")
            for one in self._catalog.versions_of(owner.name)
            if one.version != owner.current
        ]
        if not others:
            return f": it has no version but {owner.current}, so deploy another" if owner.current else ": deploy one"
        before = f" before {owner.current}" if owner.current else ""
        return f": no sound version was current{before}; {', '.join(others)}; name one to make it current"

    async def _until_current(self, target: VersionRecord) -> None:
        def is_decided() -> bool:
            record = self._catalog.versions.get(target.id)
            return record is None or record.promotion is None

        decided = await self._reconciler.until(is_decided, _start_timeout_s(target))
        record = self._catalog.versions.get(target.id)
        if not decided or record is None:
            raise Unavailable(f"{target.id} did not become current in time: see clipper model show {target.model}")
        if record.state == "failed":
            raise ContainerFailed(record.last_error or f"{target.id} cannot be started", list(record.log_tail))
        if self._catalog.model(target.model).current != target.version:
            raise Conflict(record.last_error or f"a later request made another version of {target.model!r} current")
        await self._reconciler.reach_workers(REACH_TIMEOUT_S)

    async def _have_gone(self, removed: list[VersionRecord]) -> None:
        """Push the removal to workers, and remove the versions' files once their containers are gone."""

        def are_gone() -> bool:
            return not any(self._manager.slots(record.id) for record in removed)

        await self._reconciler.reach_workers(REACH_TIMEOUT_S)
        await self._reconciler.until(are_gone, REACH_TIMEOUT_S)
        for record in removed:
            # Skipped if the version was deployed again meanwhile, or if one of its containers has not stopped.
            if record.id not in self._catalog.versions and not self._manager.slots(record.id):
                for path in self._manager.log_paths(record.id).values():
                    logs.remove(path)
                if not self._catalog.uses_artifact(record.spec.artifact):
                    self._artifacts.remove(record.spec.artifact)
        await self._manager.prune(self._catalog.artifacts())


def _start_timeout_s(record: VersionRecord) -> float:
    """Return how long a version may take until it serves."""
    # Besides the start itself: stopping the old containers in its slots, its environment, and the workers.
    start_s = MOST_START_TIMES * record.spec.start_timeout_s
    return start_s + PREPARE_TIMEOUT_S + LINK_TIMEOUT_S + REACH_TIMEOUT_S


def _sample_text(sample: Any) -> str | None:
    if sample is None:
        return None
    check_json("sample", sample)
    return msgspec.json.encode(sample).decode()


def logs_of(
    paths: Mapping[str, Path],
    after: Mapping[str, str],
    lines: int,
    others: Mapping[str, tuple[logs.Lines, str]] = MappingProxyType({}),
) -> Logs:
    """Return the answer of ``Operations.logs`` for these logs. ``others``: logs that were read elsewhere."""
    found = {**logs.logs_after(paths, after, lines), **others}
    return Logs({name: each for name, (each, _) in found.items()}, {name: place for name, (_, place) in found.items()})


def tell_outdated(found: Logs, causes: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Add to each log that is not up to date why it is not; to one that is followed only at first."""
    for name in (found.lines.keys() & causes.keys()) - after.keys():
        found.lines[name] += (f"the rest of this log cannot be read now: {causes[name]}",)


def _check_texts(deployment: Deployment) -> None:
    """Check the texts that go into a command line, a path or a log. A sample does not, so it may be any JSON; the
    type of a record has a bound of its own."""
    for field, text in shared(deployment, VersionSpec).items():
        if (
            field not in ("sample", "output_type")
            and isinstance(text, str)
            and not (len(text) <= MAX_TEXT_LENGTH and text.isprintable())
        ):
            raise InvalidArgument(f"{field} is {text!r:.100}: expected at most {MAX_TEXT_LENGTH} printable characters")


def _check_framework(deployment: Deployment) -> None:
    framework, output, loader = deployment.framework, deployment.output, deployment.loader
    if framework is not None and (framework == "torch_state") != (loader == "import"):
        raise InvalidArgument(
            f"framework {framework} does not go with loader {loader}: expected a model file, or for torch_state "
            "module:Class with the state dict as data"
        )
    if deployment.precision is not None and framework not in ("torchscript", "torch_state"):
        raise InvalidArgument(
            f"precision {deployment.precision} is for PyTorch's networks, from a TorchScript file or a state dict: "
            "expected none. The file of any other model says how it computes"
        )
    gpus = None if deployment.gpu_memory_bytes is None else parse_gpus(deployment.gpus or "all")
    if gpus is not None and gpus.count != 1 and gpus.part is None:
        raise InvalidArgument(
            f"gpu_memory_bytes is for a replica with one GPU or a part of one, and gpus is {deployment.gpus}: "
            "expected gpus 1, or a part such as 0.5"
        )
    if framework == "torch_state" and deployment.data is None:
        raise InvalidArgument("framework torch_state needs the state dict as data")
    if output is not None and not all(name.strip() for name in output.split(",")):
        raise InvalidArgument(f"output {output!r} is malformed: expected labels, probabilities or NAME[,NAME...]")
