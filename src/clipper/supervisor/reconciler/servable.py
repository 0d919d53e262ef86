"""Decides which applications workers get: a record that cannot be encoded in a snapshot must not harm the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clipper.control.messages import MAX_MESSAGE_BYTES, Apply, decode_command, encode
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.errors import ClipperError, InvalidArgument, TooLarge
from clipper.settings.fields import check_ranges
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.rollout import rules

# Half of a snapshot's message. The other half is for models and their replicas, which take some hundred bytes each.
MAX_APPLICATIONS_BYTES = MAX_MESSAGE_BYTES // 2
# Most JSON parsers recurse and fail at a few hundred levels; an input has at most eight.
MAX_DEPTH = 64
# The largest integer of the snapshot's encoding, SQL and most languages.
MAX_INTEGER = 2**63 - 1


def check_json(field: str, value: Any) -> None:
    """Raise InvalidArgument for JSON that cannot go to workers and back: too deep, or with integers over 64 bits."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        for one in level:
            if isinstance(one, int) and not -MAX_INTEGER <= one <= MAX_INTEGER:
                raise InvalidArgument(
                    f"{field}: there is a whole number of over 64 bits; write it like 1e20, or as text"
                )
        inside = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [each for part in inside for each in part]
        if not level:
            return
    raise InvalidArgument(f"{field}: nested over {MAX_DEPTH} levels deep")


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A record in the form for workers, or why they cannot get it."""

    record: ApplicationRecord
    snapshot: ApplicationSnapshot | None
    size_bytes: int = 0
    why_not: str = ""


class Servable:
    """Encodes each record once in the form for workers. ``left_out`` are records that workers do not get, and why."""

    def __init__(self, code_folder: Callable[[str], str]) -> None:
        """Make an encoder. ``code_folder`` maps an artifact's digest to the folder of its modules."""
        self.left_out: dict[str, str] = {}
        self._code_folder = code_folder
        self._encoded: dict[str, _Encoded] = {}
        self._revision: int | None = None
        self._found: tuple[ApplicationSnapshot, ...] = ()

    def snapshots(
        self, records: Mapping[str, ApplicationRecord], revision: int | None = None
    ) -> tuple[ApplicationSnapshot, ...]:
        """Return the snapshots that can be encoded. ``revision`` is the records'; None if nobody counts changes."""
        if revision is not None and revision == self._revision:
            return self._found
        self._revision = revision
        self._encoded = {name: self._known(record) for name, record in records.items()}
        self.left_out = {}
        found, size_bytes = [], 0
        for name, each in self._encoded.items():
            if each.snapshot is None:
                self.left_out[name] = each.why_not
            elif size_bytes + each.size_bytes > MAX_APPLICATIONS_BYTES:
                self.left_out[name] = (
                    f"together with the others it is over {MAX_APPLICATIONS_BYTES} bytes, the most that workers take"
                )
            else:
                size_bytes += each.size_bytes
                found.append(each.snapshot)
        # The whole stays the same object while all parts do.
        if len(found) != len(self._found) or any(now is not then for now, then in zip(found, self._found)):
            self._found = tuple(found)
        return self._found

    def check(self, record: ApplicationRecord, others: Mapping[str, ApplicationRecord]) -> None:
        """Check that a record can be encoded for workers, beside the others. Raises InvalidArgument or TooLarge."""
        new = self._known(record)
        if new.snapshot is None:
            raise InvalidArgument(f"application {record.name!r} cannot be served: {new.why_not}")
        taken = sum(self._known(other).size_bytes for name, other in others.items() if name != record.name)
        if taken + new.size_bytes > MAX_APPLICATIONS_BYTES:
            raise TooLarge(
                f"application {record.name!r} takes {new.size_bytes} bytes, and the others {taken}: expected at most "
                f"{MAX_APPLICATIONS_BYTES} together; make default outputs and parameters smaller"
            )

    def _known(self, record: ApplicationRecord) -> _Encoded:
        known = self._encoded.get(record.name)
        return known if known is not None and known.record is record else self._encode(record)

    def _encode(self, record: ApplicationRecord) -> _Encoded:
        """Encode a record and decode it as workers will, so that they can read it."""
        try:
            rules.checked_type(record.input_type)
            check_ranges(record.selection)
            snapshot = rules.application_snapshot(record, self._code_folder)
            body = encode(Apply(Snapshot(applications=(snapshot,))))
            decode_command(body[4:])
        except ClipperError as error:
            return _Encoded(record, None, why_not=str(error))
        except (OverflowError, ValueError, TypeError, RecursionError) as error:  # the encoder cannot write it
            return _Encoded(record, None, why_not=f"it cannot be encoded for the workers: {error}")
        return _Encoded(record, snapshot, len(body))
