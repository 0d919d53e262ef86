"""Rules for operators' requests, and the records made from them. Values in, values out."""

import hashlib
from collections.abc import Callable, Collection, Iterable

import msgspec
from msgspec.structs import replace

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument
from clipper.settings.fields import shared
from clipper.settings.replicas import ReplicaRange
from clipper.settings.server import MOST_MAX_BODY_BYTES
from clipper.settings.version import VersionSpec
from clipper.supervisor.registry.records import ApplicationRecord, VersionRecord
from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import MAX_CONTEXT_LENGTH

# Among a thousand contents of one model, two have equal digests with a chance of 2e-9.
STATE_KEY_BYTES = 6


def application_snapshot(record: ApplicationRecord, code_folder: Callable[[str], str]) -> ApplicationSnapshot:
    """Return an application in the form for workers. ``code_folder`` maps a digest to the folder of its modules."""
    selection = replace(record.selection, code=code_folder(record.code) if record.code else None)
    own = {"selection": selection, "id": record.state_id, "needs_key": record.require_key}
    return ApplicationSnapshot(**shared(record, ApplicationSnapshot) | own)


def within(replicas: int | ReplicaRange, in_use: int) -> int:
    """Return the number of replicas that a version begins with; in a range, the number nearest to those in use."""
    return replicas if isinstance(replicas, int) else min(max(in_use, replicas.min), replicas.max)


def scaled(record: VersionRecord, replicas: int | ReplicaRange) -> VersionRecord:
    """Return the record of a version that gets so many replicas. With 0 it is unloaded: it keeps what it had."""
    if replicas == 0:
        before = record.loads_with or record.scaling or record.replicas_wanted
        return replace(record, replicas_wanted=0, scaling=None, loads_with=before)
    scaling = replicas if isinstance(replicas, ReplicaRange) else None
    return replace(record, replicas_wanted=within(replicas, record.replicas_wanted), scaling=scaling, loads_with=None)


def loaded(record: VersionRecord) -> VersionRecord:
    """Return the record of a version that was unloaded, and gets what it had, one replica at least."""
    again = scaled(record, record.loads_with or 1)
    return replace(again, replicas_wanted=max(again.replicas_wanted, 1))


def next_version(taken: Iterable[str]) -> str:
    return str(max((int(version) for version in taken if version.isdecimal()), default=0) + 1)


def state_key(model: str, version: str, spec: VersionSpec, taken: Collection[str]) -> str:
    """Return a version's name in learned state: by what decides its outputs, so that equal code learns together on all
    servers that share a store, whatever its version is called there, and other code under its name learns apart.

    A second version of the same content in a home is told apart by its own name. ``taken``: the state keys of the
    model's other versions.
    """
    loaded = spec.artifact, spec.loader, spec.target, spec.data, spec.framework, spec.output, spec.precision
    content = *loaded, sorted(spec.env.items()), *([spec.precision] if spec.precision is not None else ())
    digest = hashlib.blake2b(msgspec.json.encode(content), digest_size=STATE_KEY_BYTES).hexdigest()
    key = f"{model}:@{digest}"
    return f"{key}.{version}" if key in taken else key


def next_promotion(versions: Iterable[VersionRecord]) -> int:
    """Return the number of a new request to become current, above the numbers of all requests under way."""
    return max((record.promotion or 0 for record in versions), default=0) + 1


def check_context(context: str | None) -> None:
    """Raise InvalidArgument if no query can be in a context. The empty context would stand for what all have taught."""
    if context is not None and not 0 < len(context) <= MAX_CONTEXT_LENGTH:
        raise InvalidArgument(f"context has {len(context)} characters: expected 1 to {MAX_CONTEXT_LENGTH}")


def checked_type(text: str) -> ValueType:
    """Read an input type. Raises InvalidArgument if it is none, or if no request or frame is as large as its rows."""
    input_type = parse_type(text)
    if isinstance(input_type, RecordType):
        RecordReader(input_type)  # refuses a default that is not a value of its field
    # A number takes at least a digit and a comma. A frame to a container has room for far more.
    if (needed := 2 * input_type.elements) > MOST_MAX_BODY_BYTES:
        raise InvalidArgument(
            f"an input of {input_type} takes at least {needed:.3g} bytes as JSON, and a request has "
            f"{MOST_MAX_BODY_BYTES} at most: declare a smaller type"
        )
    return input_type
