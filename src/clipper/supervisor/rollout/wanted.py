"""Derives from the registry's records which versions run, and the snapshot for workers. Values in, values out."""

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from msgspec.structs import replace

from clipper.control import snapshot
from clipper.errors import InvalidArgument, ModelFailed
from clipper.settings.fields import shared
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import ApplicationRecord, KeyRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout import newcomers
from clipper.values.outputs.conversion import Conversion
from clipper.values.records import parse_type
from clipper.values.types import ModelId

# A batch that runs longer than both of these counts as hung: no application still waits for it.
MIN_BATCH_TIMEOUT_S = 30.0
BATCH_TIMEOUT_SLOS = 10

# A version, its replicas in service, and whether one is starting and none is in service.
_Told = tuple[VersionRecord, tuple[snapshot.ReplicaAddress, ...], bool]


class Records(Protocol):
    """The records of models, versions and applications. ``keep_previous``: how many replicas a model's previous version
    keeps for a rollback.
    """

    keep_previous: int

    @property
    def applications(self) -> Mapping[str, ApplicationRecord]: ...

    @property
    def models(self) -> Mapping[str, ModelRecord]: ...

    @property
    def versions(self) -> Mapping[ModelId, VersionRecord]: ...

    @property
    def keys(self) -> Mapping[str, KeyRecord]: ...

    def versions_of(self, model: str) -> list[VersionRecord]:
        """Return a model's versions, oldest first."""

    def linking(self, model: str) -> Iterator[tuple[ApplicationRecord, str | None]]:
        """Return the applications that link a model, each with the version that it pins."""


def cancelled(records: Records, model: str) -> list[VersionRecord]:
    """Cancel requests of a model's versions to become current: an operator chose its current version again."""
    return [replace(one, promotion=None) for one in records.versions_of(model) if one.promotion is not None]


def running(records: Records) -> dict[ModelId, int]:
    """Return how many replicas each version has to have; one that is kept for a rollback at most ``keep_previous``."""
    pinned = {
        ModelId(link.model, link.version)
        for application in records.applications.values()
        for link in application.links
        if link.version is not None
    }
    pinned |= newcomers.compared_with(records.applications.values())
    runs = {}
    for id_, record in records.versions.items():
        model = records.models[record.model]
        if record.state == "failed":
            continue
        if id_ in pinned or record.version == model.current or record.kept or record.promotion is not None:
            runs[id_] = record.replicas_wanted
        elif record.version == model.previous and records.keep_previous > 0:
            runs[id_] = min(record.replicas_wanted, records.keep_previous)
    return runs


def goes_on(records: Records, runs: Mapping[ModelId, int], slot: Slot, spec: VersionSpec) -> bool:
    """Whether a container that an earlier supervisor started goes on: it is wanted, and is as its record says.

    ``spec`` may lack the sample, which is of no use to a container that runs.
    """
    record = records.versions.get(slot.model_id)
    if record is None or slot.index > runs.get(record.id, 0):
        return False
    return record.spec == (spec if spec.sample is not None else replace(spec, sample=record.spec.sample))


def to_remove(records: Records, keep: int) -> list[ModelId]:
    """Return versions that neither run nor are named by anything, except the newest ``keep`` of each model."""
    runs = running(records)
    idle: dict[str, list[VersionRecord]] = {}
    for record in sorted(records.versions.values(), key=lambda record: record.created_at):
        model = records.models[record.model]
        # A pinned version that has failed does not run, but must be kept.
        is_pinned = any(pin == record.version for _, pin in records.linking(record.model))
        is_idle = record.state in ("sleeping", "failed") and record.id not in runs and not is_pinned
        if is_idle and record.version not in (model.current, model.previous):
            idle.setdefault(record.model, []).append(record)
    return [record.id for group in idle.values() for record in group[: max(len(group) - keep, 0)]]


class Contents:
    """Makes the content of snapshots, and only changed parts anew, so that contents can be compared by identity."""

    def __init__(self) -> None:
        # By model, the sources of its part, and the part.
        self._models: dict[str, tuple[tuple[object, ...], snapshot.ModelSnapshot]] = {}
        # The revision from which all of these were made.
        self._revision: int | None = None
        self._runs: Mapping[ModelId, int] = {}
        self._replicas: Mapping[ModelId, tuple[snapshot.ReplicaAddress, ...]] = {}
        self._content = snapshot.Snapshot()
        self._keys: dict[str, tuple[KeyRecord, snapshot.KeySnapshot]] = {}

    def make(
        self,
        records: Records,
        runs: Mapping[ModelId, int],
        applications: tuple[snapshot.ApplicationSnapshot, ...],
        replicas: Mapping[ModelId, tuple[snapshot.ReplicaAddress, ...]],
        peers: tuple[snapshot.Peer, ...],
        fleet_revision: int | None = None,
        workers: int = 1,
        looping: Collection[ModelId] = (),
    ) -> snapshot.Snapshot:
        """Make the content of a snapshot for workers, without its generation.

        Args:
            runs: the target number of replicas of each version.
            looping: the versions whose replicas are all in a crash loop; it may change only with ``replicas``.
        """
        is_same = fleet_revision is not None and fleet_revision == self._revision
        models = self._content.models
        if not is_same or replicas is not self._replicas or runs != self._runs:
            models = self._all_models(records, runs, replicas, looping)
        self._revision, self._runs, self._replicas = fleet_revision, runs, replicas
        self._keys = {name: self._key(key) for name, key in sorted(records.keys.items())}
        keys = tuple(part for _, part in self._keys.values())
        self._content = snapshot.Snapshot(0, applications, models, peers, keys, workers=workers)
        return self._content

    def _all_models(
        self,
        records: Records,
        runs: Mapping[ModelId, int],
        replicas: Mapping[ModelId, tuple[snapshot.ReplicaAddress, ...]],
        looping: Collection[ModelId],
    ) -> tuple[snapshot.ModelSnapshot, ...]:
        # A version without an input type has had no ready container yet. A version that stops stays in the snapshot
        # until its last replica has left service.
        told: dict[str, list[_Told]] = {name: [] for name in records.models}
        for id_, record in records.versions.items():
            own = replicas.get(id_)
            if record.input_type is not None and (own is not None or id_ in runs):
                is_starting = not own and runs.get(id_, 0) > 0 and id_ not in looping
                told[record.model].append((record, own or (), is_starting))
        self._models = {model.name: self._model(model, told[model.name]) for model in records.models.values()}
        return tuple(part for _, part in self._models.values())

    def _model(self, model: ModelRecord, versions: list[_Told]) -> tuple[tuple[object, ...], snapshot.ModelSnapshot]:
        basis = model, *(each for version in versions for each in version)
        known = self._models.get(model.name)
        if (
            known is not None
            and len(known[0]) == len(basis)
            and all(now is then or (isinstance(now, tuple) and now == then) for now, then in zip(basis, known[0]))
        ):
            return known
        ordered = sorted(versions, key=lambda version: (version[0].created_at, version[0].version))
        parts = tuple(_version_snapshot(*version) for version in ordered)
        part = snapshot.ModelSnapshot(model.name, model.current, parts)
        return basis, part if known is None or known[1] != part else known[1]

    def _key(self, key: KeyRecord) -> tuple[KeyRecord, snapshot.KeySnapshot]:
        known = self._keys.get(key.name)
        if known is not None and known[0] is key:
            return known
        return key, snapshot.KeySnapshot(**shared(key, snapshot.KeySnapshot))


def _version_snapshot(
    record: VersionRecord, replicas: tuple[snapshot.ReplicaAddress, ...], is_starting: bool
) -> snapshot.VersionSnapshot:
    wakes = record.scaling is not None and record.scaling.min == 0
    parts = shared(record, snapshot.VersionSnapshot)
    # An unloaded version answers nothing: workers drop its outputs from their caches.
    parts["cache"] = record.cache and record.loads_with is None
    return snapshot.VersionSnapshot(**parts, replicas=replicas, wakes=wakes, is_starting=is_starting)


def batch_timeout_s(records: Records, model: str) -> float:
    """Return how long a batch of a model may run before its replica counts as hung."""
    slos_s = (application.slo_ms / 1000 for application, _ in records.linking(model))
    return max([MIN_BATCH_TIMEOUT_S, *(BATCH_TIMEOUT_SLOS * slo_s for slo_s in slos_s)])


def fits(application: str, model: str) -> bool:
    """Whether an application's queries can go to a model, by their input types as text.

    Either may leave a length open that the other fixes: workers check each query against both.
    """
    taken = parse_type(model)
    both = parse_type(application).narrowed(taken)
    return both is not None and both.suits(taken)


def check_fits(application: ApplicationRecord, version: VersionRecord) -> None:
    """Raise InvalidArgument if the application's queries cannot go to the version, or its default is not of the type
    that the deployment or the model's code declares. ``null`` is a default of any type: it says that there is none.
    """
    if version.input_type is not None and not fits(application.input_type, version.input_type):
        raise InvalidArgument(
            f"application {application.name!r} has inputs {application.input_type}, but version {version.version!r} of "
            f"model {version.model!r} takes {version.input_type}: declare the same type for both"
        )
    declared = version.spec.output_type
    # A type that the model's file states does not bind: applications had defaults before files were asked for types.
    if declared is None and version.output_is_declared and version.spec.framework is None:
        declared = version.output_type
    if declared is not None and application.default_output not in (None, "null"):
        try:
            Conversion(parse_type(declared)).convert(application.default_output.encode())
        except ModelFailed as error:
            raise InvalidArgument(
                f"the default output {application.default_output:.100} of application {application.name!r} is not of "
                f"the output type of version {version.version!r} of model {version.model!r}: expected {declared}"
            ) from error
