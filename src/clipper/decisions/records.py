"""What the decision log holds: records, and the blocks in which they lie in a file.

A **segment**, a file, is ``SEGMENT_HEAD`` and blocks. A **block** is its payload's length and CRC-32, each a
little-endian 32-bit number, and the payload: a msgpack array of records. Each record is an array too, whose first
element tells its kind. A decision names the setting that it was made under by that setting's place among those of its
block, so that a block can be read without any other.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

SEGMENT_HEAD = b"clipper decisions 1\n"
BLOCK_HEAD = struct.Struct("<II")
# Above this a block's length is not one that was written: the file is damaged.
MAX_BLOCK_BYTES = 1 << 20
# Of a query's outputs together; each of n may have the n-th part. A label has as much room.
MAX_OUTPUTS_BYTES = 8 * 1024


class Setting(Struct, frozen=True, array_like=True, tag=0):
    """What an application's queries were decided by.

    Attributes:
        models: those that it selects among, in the order in which they were linked.
        versions: of each of them the one that ran; None if none did.
        default: the default output, JSON text; None if the application has none. As much of it as an output may have.
    """

    application: str
    policy: str
    models: tuple[str, ...]
    versions: tuple[str | None, ...]
    default: bytes | None = None


DECISION = 1
# A decision as it is encoded: its tag, and its fields up to ``context``. What is left out is as it is by default; most
# decisions are so, and take half the time to make and to encode.
BriefDecision = tuple[
    int,
    int,
    int,
    float,
    float,
    tuple[str, ...],
    tuple[float, ...],
    tuple[bytes | None, ...],
    bytes | None,
    float,
    str | None,
    str | None,
]


class Decision(Struct, frozen=True, array_like=True, tag=DECISION, gc=False):
    """What was decided for one query.

    Attributes:
        setting: which of its block's.
        time_s: when it came, in seconds since 1970.
        latency_s: from then until it was answered.
        models, shares: the policy's choice: see ``Choice``; none if it made none.
        outputs: JSON text of each of ``models``; None for one that had not answered by then.
        answer: JSON text of what was answered, where that is neither the only output nor the default.
        confidence: in the answer, 0 to 1.
        reason: why the default was answered, or an error; None if there was an answer.
        pinned: the version that the query asked for, past the policy.
        beliefs: the parameters that the choice was drawn by: see ``Choice``.
        is_cut: an output or answer was too long, and has only its beginning here.
        raw_confidence: what ``confidence`` was made of, by the answer's own probabilities or feedback; None if it is as
            the policy said.
        steps: what the policy made of what had come, before it asked further models or did not: of each step how many
            models had been asked, the confidence by then, and the probability of going on.
        features: raw buffer of the float64 numbers that the query brought for its policy, little-endian.
    """

    setting: int
    query_id: int
    time_s: float
    latency_s: float
    models: tuple[str, ...]
    shares: tuple[float, ...]
    outputs: tuple[bytes | None, ...]
    answer: bytes | None
    confidence: float
    reason: str | None
    context: str | None
    pinned: str | None = None
    beliefs: tuple[tuple[float, float], ...] | None = None
    is_cut: bool = False
    raw_confidence: float | None = None
    steps: tuple[tuple[int, float, float], ...] = ()
    features: bytes | None = None


class Judgement(Struct, frozen=True, array_like=True, tag=2, gc=False):
    """One piece of feedback on a query.

    Attributes:
        time_s: when it came, in seconds since 1970.
        label: JSON text of the right output; None if there was a reward, or it is too long.
        losses: of each model that was scored. None if the feedback came so late that the query was not known any more,
            and nothing was learned from it.
        answer_loss: of what was answered, also where that was the default; None if it is not known.
        loss, loss_parameters: where ``losses`` is None: how the label is to be compared with the outputs.
    """

    application: str
    query_id: int
    time_s: float
    label: bytes | None
    reward: float | None
    losses: dict[str, float] | None
    answer_loss: float | None = None
    loss: str | None = None
    loss_parameters: dict[str, float] | None = None


Record = Setting | Decision | Judgement

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode
# A msgpack array of up to 2^32 elements.
_ARRAY = struct.Struct(">BI")
_ARRAY_MARK = 0xDD
# What stands before a block's records.
BLOCK_PREFIX_BYTES = BLOCK_HEAD.size + _ARRAY.size


def begin_block() -> bytearray:
    """An empty block, which ``extend_block`` extends."""
    return bytearray(BLOCK_PREFIX_BYTES)


def extend_block(block: bytearray, records: Sequence["Record | BriefDecision"]) -> None:
    """Encode records, 65,535 at most, to a block's end. All in one go, which is twice as quick as one by one."""
    text = _encode(records)
    # What msgpack begins an array with: it is a part of the block's own.
    with memoryview(text)[1 if len(records) < 16 else 3 :] as payload:
        block += payload


def end_block(block: bytearray, records: int) -> None:
    """Fill in what stands before the records."""
    _ARRAY.pack_into(block, BLOCK_HEAD.size, _ARRAY_MARK, records)
    with memoryview(block)[BLOCK_HEAD.size :] as payload:
        BLOCK_HEAD.pack_into(block, 0, len(payload), zlib.crc32(payload))


class Damaged(Exception):
    """A segment ends in the middle of a block, or holds what was never written."""


def decode_block(payload: bytes, checksum: int) -> list[Record]:
    """The records of a block.

    Raises:
        Damaged: these bytes are not what was written.
    """
    if zlib.crc32(payload) != checksum:
        raise Damaged("its checksum is wrong")
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"it cannot be read: {error}") from error


def split(records: list[Record]) -> Iterator[tuple[Setting, Decision] | Judgement]:
    """The records of a block, each decision with its setting.

    Raises:
        Damaged: a decision names a setting that is not there.
    """
    settings: list[Setting] = []
    for record in records:
        if isinstance(record, Setting):
            settings.append(record)
        elif isinstance(record, Judgement):
            yield record
        elif 0 <= record.setting < len(settings):
            yield settings[record.setting], record
        else:
            raise Damaged(f"a decision names setting {record.setting} of {len(settings)}")
