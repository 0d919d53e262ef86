"""The messages to workers, as bytes: each is made once for all workers that need the same."""

from dataclasses import dataclass

from msgspec.structs import replace

from clipper.base.tls.material import TlsMaterial
from clipper.control.difference import Changes
from clipper.control.messages import Apply, ApplyDifference, encode
from clipper.control.snapshot import Snapshot
from clipper.values.records import RecordType, parse_type

# Messages of the newest snapshot: the whole, and a difference for each base that workers have. There are few bases,
# since all workers get their messages at the same time.
MAX_KEPT = 16


@dataclass(frozen=True, slots=True)
class ApplyMessage:
    """A command with its bytes. ``is_whole``: whether it holds the whole snapshot, and not a difference."""

    command: Apply | ApplyDifference
    body: bytes

    @property
    def is_whole(self) -> bool:
        return isinstance(self.command, Apply)


def without_records(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot for a worker older than records and pipelines: the type of a record would end it."""
    models = tuple(
        replace(model, versions=tuple(each for each in model.versions if not _is_record(each.input_type)))
        for model in snapshot.models
    )
    applications = tuple(each for each in snapshot.applications if not each.steps and not _is_record(each.input_type))
    return replace(snapshot, applications=applications, models=models)


def _is_record(input_type: str) -> bool:
    return isinstance(parse_type(input_type), RecordType)


class ApplyMessages:
    def __init__(self) -> None:
        self._changes = Changes()
        self._snapshot: Snapshot | None = None
        self._kept: dict[tuple[int | None, TlsMaterial | None, bool], ApplyMessage] = {}

    def make(self, snapshot: Snapshot, base: int | None, tls: TlsMaterial | None, is_stopping: bool) -> ApplyMessage:
        """Return the message for a worker: a difference from ``base``, or the whole snapshot.

        ``base`` is the generation that the worker last reported to us. If there is a newer snapshot by now, the message
        has that.
        """
        newest = self._snapshot
        if newest is None or snapshot.generation > newest.generation:
            newest = self._snapshot = snapshot
            self._changes.follow(snapshot)
            self._kept.clear()
        difference = None if base is None else self._changes.since(base)
        key = None if difference is None else base, tls, is_stopping
        known = self._kept.get(key)
        if known is None:
            command = (
                Apply(newest, tls, is_stopping) if difference is None else ApplyDifference(difference, tls, is_stopping)
            )
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            known = self._kept[key] = ApplyMessage(command, encode(command))
        return known
