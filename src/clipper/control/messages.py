"""The channel between the supervisor and a query worker: messages and their framing, no I/O.

The worker listens on a unix socket, or on TCP (``control/address.py``). A supervisor, old or new, dials it, and so does
another worker that has feedback for it. Each message is a u32 little-endian size and that many bytes of
MessagePack. The dialling side sends commands, and the worker answers them in order. Each command names the type of its
reply: ``GetStatistics`` is a ``Command[Statistics]``.

To add a command, define it and its reply here, add both to the unions below, and add a case to ``Worker.answer`` in
``worker/worker.py``.
"""

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar, get_args

import msgspec
from msgspec import Struct

from clipper.base.tls.material import TlsMaterial
from clipper.control.descriptions import ModelDescription, Reliability, Standing
from clipper.control.difference import Difference
from clipper.control.feedback import Feedback, Outcome
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import WorkerStatistics
from clipper.errors import ProtocolViolation
from clipper.values.types import ModelId

# A supervisor and workers of adjacent versions understand each other, since an upgraded server replaces its workers one
# by one. Within a version fields and messages are only added, with defaults.
CHANNEL_VERSION = 2
# A snapshot of ten thousand applications is about 3 MB. A message over this bound is a bug.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# Several inputs of this size do not strain a machine. A larger input costs more to send than a warm-up gains.
MAX_RECENT_INPUT_BYTES = 16 * 1024 * 1024

T = TypeVar("T")
R = TypeVar("R")

_SIZE = struct.Struct("<I")


class Command(Struct, Generic[R], frozen=True):
    """A request to a worker; ``R`` is the type of its reply."""

    @classmethod
    def reply_type(cls) -> type[R]:
        (base,) = cls.__orig_bases__  # type: ignore[attr-defined]
        (reply,) = get_args(base)
        return reply  # type: ignore[no-any-return]


class Applied(Struct, frozen=True, tag=True):
    """The reply to a snapshot or difference: the worker serves by a snapshot.

    The worker sends this once it has dialled every replica in the snapshot, and every replica that left the snapshot
    has answered its last batch; or after ``settle_timeout_s`` of the worker's settings.

    Attributes:
        generation: the generation in force, which may be newer than the one that this replies to.
        unlinked: by replica id, why a replica could not be dialled.
        undrained: ids of removed replicas that still have a batch in flight.
        needs_whole: whether the difference could not be applied to the snapshot in force, so that nothing was done.
    """

    generation: int
    unlinked: dict[str, str]
    undrained: tuple[str, ...]
    needs_whole: bool = False


class Apply(Command[Applied], frozen=True, tag=True):
    """Serve by this snapshot.

    ``tls`` is the certificate and key for new connections to the query port, unless the worker's settings say no TLS.
    ``is_stopping`` says that the server was told to stop, so that the worker is not ready from now on.
    """

    snapshot: Snapshot
    tls: TlsMaterial | None = None
    is_stopping: bool = False


class ApplyDifference(Command[Applied], frozen=True, tag=True):
    """Serve by the snapshot that this difference leads to. The rest is as in ``Apply``."""

    difference: Difference
    tls: TlsMaterial | None = None
    is_stopping: bool = False


class Statistics(Struct, frozen=True, tag=True):
    worker: WorkerStatistics


class GetStatistics(Command[Statistics], frozen=True, tag=True):
    """Asks for the worker's reading, which has about a megabyte for a thousand applications.

    Attributes:
        applications: only these; None means all.
        versions: only these and their replicas; None means all.
        marks: the marks of the last readings of these applications, then of these versions; they may be fewer. The
            reply leaves out readings that still have this mark, and all replicas, limits and problems of policies: such
            questions come many times a second. None asks for everything, as workers without this field answer.
        batches: also versions' batches by size, which may be thousands of numbers for each version.
        known: the same as ``marks``, for a scrape: the reply leaves out the same readings, and has all else. It has a
            bounded number of readings, and says how far it came (``WorkerStatistics.looked``). Workers without this
            field answer everything.
    """

    applications: tuple[str, ...] | None = None
    versions: tuple[ModelId, ...] | None = None
    marks: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    batches: bool = False
    known: tuple[tuple[int, ...], tuple[int, ...]] | None = None


class UndecodedStatistics(Struct, frozen=True, tag="Statistics"):
    """A ``Statistics`` whose caller decodes it elsewhere: it may have megabytes."""

    worker: msgspec.Raw

    def decode(self) -> WorkerStatistics:
        """Raises ProtocolViolation if it is malformed."""
        return _decode(_statistics, self.worker)


class GetReadings(Command[UndecodedStatistics], frozen=True, tag="GetStatistics"):
    """``GetStatistics`` with ``known``, whose reply comes undecoded."""

    applications: tuple[str, ...]
    versions: tuple[ModelId, ...]
    known: tuple[tuple[int, ...], tuple[int, ...]]


class Draining(Struct, frozen=True, tag=True):
    pass


class Drain(Command[Draining], frozen=True, tag=True):
    """Stop accepting, answer what is in flight, then exit 0. ``epoch``: the supervisor's; None from an old one."""

    epoch: int | None = None


class Refused(Struct, frozen=True, tag=True):
    """The reply to a command that the worker does not take from its sender."""

    why: str


class Observed(Struct, frozen=True, tag=True):
    """The outcomes of pieces of feedback, in their order."""

    outcomes: tuple[Outcome, ...]


class ObservePart(Struct, frozen=True):
    """Feedback on one application."""

    application: str
    feedback: tuple[Feedback, ...]


class Observe(Command[Observed], frozen=True, tag=True):
    """Feedback on queries that this worker answered, from a worker to which clients sent it.

    ``others`` is more feedback, on any application; the outcomes come in the order of all. An older worker does not
    know this field, and answers fewer outcomes.
    """

    application: str
    feedback: tuple[Feedback, ...]
    others: tuple[ObservePart, ...] = ()


class PolicyDescription(Struct, frozen=True, tag=True):
    """The state that a policy has learned. Old feedback counts for less in its numbers.

    ``found`` is False if the worker does not know the application. ``test`` is None if the policy is not a test.
    ``prices`` say what asking models costs queries at the moment, a sentence for each.
    """

    found: bool
    observations: float = 0.0
    models: tuple[ModelDescription, ...] = ()
    problem: str | None = None
    calibration: tuple[Reliability, ...] = ()
    test: Standing | None = None
    prices: tuple[str, ...] = ()


class DescribePolicy(Command[PolicyDescription], frozen=True, tag=True):
    """Asks what an application has learned in a context, or over all contexts if ``context`` is None."""

    application: str
    context: str | None = None


class RecentInput(Struct, frozen=True, tag=True):
    """An input that a version of the model has answered, as the container protocol sends it.

    ``row`` is None if the version has answered no input, or if the input has more than ``MAX_RECENT_INPUT_BYTES``.
    """

    input_type: str = ""
    row: bytes | None = None


class GetRecentInput(Command[RecentInput], frozen=True, tag=True):
    """Asks for an input that a model answered recently."""

    model: str


AnyCommand = Apply | ApplyDifference | GetStatistics | Drain | Observe | DescribePolicy | GetRecentInput
AnyReply = Applied | Statistics | Draining | Observed | PolicyDescription | RecentInput

_encoder = msgspec.msgpack.Encoder()
_statistics: msgspec.msgpack.Decoder[WorkerStatistics] = msgspec.msgpack.Decoder(WorkerStatistics)
_commands: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)


def encode_body(message: Command[R] | AnyReply | Refused) -> bytes:
    return _encoder.encode(message)


def encode(message: Command[R] | AnyReply | Refused) -> bytes:
    body = encode_body(message)
    return _SIZE.pack(len(body)) + body


def decode_command(body: bytes) -> AnyCommand:
    """Decode a command. Raises ProtocolViolation if it is not known here."""
    return _decode(_commands, body)


def decode_reply(body: bytes, command: Command[R]) -> R:
    """Decode the reply to ``command``. Raises CommandRefused; ProtocolViolation if it is no reply to this one."""
    decoder: msgspec.msgpack.Decoder[R | Refused] = msgspec.msgpack.Decoder(command.reply_type() | Refused)
    reply = _decode(decoder, body)
    if isinstance(reply, Refused):
        raise CommandRefused(reply.why)
    return reply


class CommandRefused(ProtocolViolation):
    """A worker does not take a command from its sender, such as a supervisor that has been replaced."""


def _decode(decoder: "msgspec.msgpack.Decoder[T]", body: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"control message is malformed: {error}") from error


class Framer:
    """Cuts a byte stream into message bodies, however it was split on the way."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes that were read; iterate to take each complete body. Raises ProtocolViolation if it is too large."""
        self._buffer += data
        return self._bodies()

    def __len__(self) -> int:
        return len(self._buffer)

    def _bodies(self) -> Iterator[bytes]:
        while len(self._buffer) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._buffer)
            if size > MAX_MESSAGE_BYTES:
                raise ProtocolViolation(f"control message of {size} bytes is over {MAX_MESSAGE_BYTES}")
            if len(self._buffer) < _SIZE.size + size:
                return
            body = bytes(self._buffer[_SIZE.size : _SIZE.size + size])
            del self._buffer[: _SIZE.size + size]
            yield body
