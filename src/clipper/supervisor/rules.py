"""What follows from the registry's contents: which versions run, what workers are told. Values in, values out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from clipper.errors import InvalidArgument
from clipper.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.scaling import ReplicaRange
from clipper.snapshot import ApplicationSnapshot, KeySnapshot, ModelSnapshot, Peer, ReplicaAddress, VersionSnapshot
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.config import MOST_MAX_BODY_BYTES
from clipper.types import InputType, ModelId

# More than any worker has at once, or answers: who wants more wants no limit.
MAX_IN_FLIGHT = 1_000_000
MAX_PER_SECOND = 1_000_000
# One in a quarter of an hour: who wants less wants none.
MIN_PER_SECOND = 0.001

# Of a cost and of its weight: their product, and sums of it, are still numbers that a state can hold.
MAX_COST = 1e6

# A batch that runs longer than the longer of these two is taken to hang: no application waits for it any more.
MIN_BATCH_TIMEOUT_S = 30.0
BATCH_TIMEOUT_SLOS = 10


@dataclass(frozen=True, slots=True)
class Content:
    """A snapshot but for its generation."""

    applications: tuple[ApplicationSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    peers: tuple[Peer, ...] = ()
    keys: tuple[KeySnapshot, ...] = ()


def running(catalog: Catalog) -> dict[ModelId, int]:
    """The target number of replicas of each version that is to run."""
    pinned = {
        ModelId(link.model, link.version)
        for application in catalog.applications.values()
        for link in application.links
        if link.version is not None
    }
    return {
        id_: record.replicas_wanted
        for id_, record in catalog.versions.items()
        if record.state != "failed" and (id_ in pinned or _runs_by_itself(record, catalog.models[record.model]))
    }


def to_remove(catalog: Catalog, keep: int) -> list[ModelId]:
    """Versions that do not run and that nothing names, beyond the newest of each model that are to be kept."""
    runs = running(catalog)
    idle: dict[str, list[VersionRecord]] = {}
    for record in sorted(catalog.versions.values(), key=lambda record: record.created_at):
        model = catalog.models[record.model]
        # A pinned version that has failed does not run, and is not to go either.
        is_pinned = any(pin == record.version for _, pin in catalog.linking(record.model))
        is_idle = record.state in ("sleeping", "failed") and record.id not in runs and not is_pinned
        if is_idle and record.version not in (model.current, model.previous):
            idle.setdefault(record.model, []).append(record)
    return [record.id for records in idle.values() for record in records[: max(len(records) - keep, 0)]]


def _runs_by_itself(record: VersionRecord, model: ModelRecord) -> bool:
    return record.kept or record.promotion is not None or record.version in (model.current, model.previous)


def content(
    catalog: Catalog,
    applications: tuple[ApplicationSnapshot, ...],
    replicas: Mapping[ModelId, tuple[ReplicaAddress, ...]],
    peers: tuple[Peer, ...],
) -> Content:
    """What workers are told.

    Args:
        applications: those that workers can be told of.
        replicas: of each version, those that are in service.
        peers: the workers themselves.
    """
    runs = running(catalog)
    models = (
        ModelSnapshot(
            model.name,
            model.current,
            tuple(
                _version_snapshot(record, record.input_type, replicas.get(record.id, ()))
                for record in catalog.versions_of(model.name)
                # Without an input type no container of it has come up yet. One that is to stop stays known until its
                # last replica is out of service.
                if record.input_type is not None and (record.id in runs or record.id in replicas)
            ),
        )
        for model in catalog.models.values()
    )
    keys = tuple(
        KeySnapshot(key.name, key.digest, key.applications, key.max_in_flight, key.max_per_second)
        for _, key in sorted(catalog.keys.items())
    )
    return Content(applications, tuple(models), peers, keys)


def check_limits(max_in_flight: int | None, max_per_second: float | None) -> None:
    """
    Raises:
        InvalidArgument: one is outside its range.
    """
    if max_in_flight is not None and not 1 <= max_in_flight <= MAX_IN_FLIGHT:
        raise InvalidArgument(f"max_in_flight {max_in_flight} is out of range: expected 1 to {MAX_IN_FLIGHT}, or none")
    if max_per_second is not None and not MIN_PER_SECOND <= max_per_second <= MAX_PER_SECOND:
        raise InvalidArgument(
            f"max_per_second {max_per_second:g} is out of range: expected {MIN_PER_SECOND:g} to {MAX_PER_SECOND:g}, "
            "or none"
        )


def application_snapshot(record: ApplicationRecord, code_folder: Callable[[str], str]) -> ApplicationSnapshot:
    """What workers are told of one; ``code_folder``: from an artifact's digest to where its modules are."""
    return ApplicationSnapshot(
        record.name,
        record.input_type,
        record.slo_ms,
        record.default_output,
        replace(record.selection, code=code_folder(record.code) if record.code else None),
        record.links,
        record.state_id,
        record.require_key,
        record.max_in_flight,
        record.max_per_second,
    )


def _version_snapshot(record: VersionRecord, input_type: str, replicas: tuple[ReplicaAddress, ...]) -> VersionSnapshot:
    return VersionSnapshot(record.version, input_type, record.batching, record.cache, replicas, record.predecessor)


def batch_timeout_s(catalog: Catalog, model: str) -> float:
    """How long a batch of a model may run before its replica is taken to hang."""
    slos_s = (application.slo_ms / 1000 for application, _ in catalog.linking(model))
    return max([MIN_BATCH_TIMEOUT_S, *(BATCH_TIMEOUT_SLOS * slo_s for slo_s in slos_s)])


def within(replicas: int | ReplicaRange, in_use: int) -> int:
    """How many replicas a version begins with that may have so many: of a range as many as are in use, if they fit."""
    return replicas if isinstance(replicas, int) else min(max(in_use, replicas.min), replicas.max)


def next_version(taken: Iterable[str]) -> str:
    """The whole number after the highest one that is taken."""
    return str(max((int(version) for version in taken if version.isdecimal()), default=0) + 1)


def next_promotion(versions: Iterable[VersionRecord]) -> int:
    """The number of a request that comes after all that are under way."""
    return max((record.promotion or 0 for record in versions), default=0) + 1


def checked_type(text: str) -> InputType:
    """An input type of which a row can be in a request, and be sent to a container.

    Raises:
        InvalidArgument: it is not valid, or no request is large enough for one of its rows.
    """
    input_type = InputType.parse(text)
    # A digit and a comma each is the least that numbers take. What a frame to a container takes is far more.
    if (needed := 2 * (input_type.row_bytes or 0) // (input_type.dtype.size_bytes or 1)) > MOST_MAX_BODY_BYTES:
        raise InvalidArgument(
            f"an input of {input_type} takes at least {needed:.3g} bytes as JSON, and a request has "
            f"{MOST_MAX_BODY_BYTES} at most: declare a smaller type"
        )
    return input_type


def fits(application: str, model: str) -> bool:
    """Whether an application's queries can go to a model, by their input types as text.

    Either may leave a length open that the other fixes: workers check each query against both.
    """
    taken = InputType.parse(model)
    both = InputType.parse(application).narrowed(taken)
    return both is not None and both.suits(taken)


def check_fits(application: ApplicationRecord, version: VersionRecord) -> None:
    """Raises InvalidArgument if the application's queries cannot go to the version."""
    if version.input_type is not None and not fits(application.input_type, version.input_type):
        raise InvalidArgument(
            f"application {application.name!r} has inputs {application.input_type}, but version {version.version!r} of "
            f"model {version.model!r} takes {version.input_type}: declare the same type for both"
        )
