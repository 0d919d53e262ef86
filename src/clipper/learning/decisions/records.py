"""The format of the decision log: records, in blocks, in segments.

A **segment** is a file: ``SEGMENT_HEAD`` and blocks. A **block** is its payload's length and CRC-32, each a
little-endian 32-bit number, and the payload: a msgpack array of records. Each record is an array, too, whose first
element is its kind. A decision names its setting by the setting's place in the block, so each block can be read alone.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

SEGMENT_HEAD = b"clipper decisions 1\n"
BLOCK_HEAD = struct.Struct("<II")
# A longer block was never written: the file is damaged.
MAX_BLOCK_BYTES = 1 << 20
# Bound on the sum of a query's outputs, in equal parts. A label has the same bound.
MAX_OUTPUTS_BYTES = 8 * 1024
# Bound of a query's input: a picture of 224 x 224 x 3 bytes. To copy it and compute its checksum takes 0.2 ms.
MAX_INPUT_BYTES = 256 * 1024


class Setting(Struct, frozen=True, array_like=True, tag=0):
    """The settings that an application's queries were decided by.

    Attributes:
        models: the models that the policy selects among, in the order of their links.
        versions: the running version of each model; None if none ran.
        default: JSON text of the default output, cut like an output; None if the application has none.
        feature_names: the names of the features that come from a record, such as ``age`` or ``job=smith``.
        input_type: the type of the inputs that are kept, without redacted fields; None if none is kept.
    """

    application: str
    policy: str
    models: tuple[str, ...]
    versions: tuple[str | None, ...]
    default: bytes | None = None
    feature_names: tuple[str, ...] = ()
    input_type: str | None = None


class PathStep(Struct, frozen=True, array_like=True, gc=False):
    """The outcome of a step of a pipeline.

    Attributes:
        rows, cached: how many inputs it was asked, and how many of these were answered at once, from the cache.
        versions: the versions that answered, such as ``encoder:3``.
        latency_s: from when it was asked until its last answer.
        end: ``answered``, ``skipped``, ``default``, an error's code, or ``open`` if the query ended before it.
    """

    step: str
    application: str
    rows: int
    cached: int
    versions: str
    latency_s: float
    end: str


DECISION = 1
# A decision in its encoded form: its tag, and its fields up to ``context``. The other fields have their defaults, as in
# most decisions. It takes half the time to make and to encode.
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
    """The decision on a query.

    Attributes:
        setting: the place of its setting in the block.
        time_s: when the query came, in seconds since 1970.
        latency_s: the time from then until its answer.
        models, shares: the policy's choice: see ``Choice``; empty if there was none.
        outputs: JSON text of each of ``models``; None for a model that had not answered by then.
        answer: JSON text of the answer, if it is neither the only output nor the default.
        reason: the error code behind a default or an error; None if there was an answer.
        pinned: the version that the query named, which bypasses the policy.
        beliefs: the parameters from which the choice was drawn: see ``Choice``.
        is_cut: whether an output or answer was too long, so that only its beginning is here.
        raw_confidence: the confidence from which ``confidence`` was derived, by probabilities or calibration; None if
            it is the policy's own.
        steps: the policy's decisions to ask further models or not: for each, the number of models asked so far, the
            confidence by then, and the probability of going on.
        features: raw buffer of the query's features, little-endian float64.
        candidates: the models that the policy selected among, if others could not answer in time; None if it was all.
        path: the steps of a pipeline, in the order in which they were asked or skipped.
        input: raw buffer of the input, of the setting's ``input_type``; None if it is not kept, or too large.
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
    candidates: tuple[str, ...] | None = None
    path: tuple[PathStep, ...] = ()
    input: bytes | None = None


def candidates_of(setting: Setting, decision: Decision) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Return the models that the policy selected among for a query, and their versions."""
    if decision.candidates is None:
        return setting.models, setting.versions
    versions = dict(zip(setting.models, setting.versions))
    return decision.candidates, tuple(versions.get(model) for model in decision.candidates)


class Judgement(Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A piece of feedback on a query.

    Attributes:
        time_s: when it came, in seconds since 1970.
        label: JSON text of the right output; None if there was a reward, or if the text is too long.
        losses: loss of each scored model. None if the feedback came so late that the query was no longer known, so that
            nothing was learned from it.
        answer_loss: loss of the answer, even if that was the default; None if it is not known.
        loss, loss_parameters: the loss that compares the label with the outputs, if ``losses`` is None.
        label_field: which of an output's values it compares, if the application names it and ``losses`` is None.
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
    label_field: str | None = None


Record = Setting | Decision | Judgement

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode
# Head of a msgpack array of up to 2^32 elements.
_ARRAY = struct.Struct(">BI")
_ARRAY_MARK = 0xDD
# Size of a block's header.
BLOCK_PREFIX_BYTES = BLOCK_HEAD.size + _ARRAY.size


def begin_block() -> bytearray:
    """Return an empty block, for ``extend_block``."""
    return bytearray(BLOCK_PREFIX_BYTES)


def extend_block(block: bytearray, records: Sequence["Record | BriefDecision"]) -> None:
    """Append encoded records to a block, at most 65,535, all at once: twice as fast as one by one."""
    text = _encode(records)
    # Drop the head of the msgpack array: the block has its own.
    with memoryview(text)[1 if len(records) < 16 else 3 :] as payload:
        block += payload


def end_block(block: bytearray, records: int) -> None:
    """Fill in the part before the records."""
    _ARRAY.pack_into(block, BLOCK_HEAD.size, _ARRAY_MARK, records)
    with memoryview(block)[BLOCK_HEAD.size :] as payload:
        BLOCK_HEAD.pack_into(block, 0, len(payload), zlib.crc32(payload))


class Damaged(Exception):
    """A segment ends within a block, or contains something that was never written."""


def decode_block(payload: bytes, checksum: int) -> list[Record]:
    """Return the records of a block. Raises Damaged if the bytes differ from what was written."""
    if zlib.crc32(payload) != checksum:
        raise Damaged("its checksum is wrong")
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"it cannot be read: {error}") from error


def split(records: list[Record]) -> Iterator[tuple[Setting, Decision] | Judgement]:
    """Return the records of a block, each decision with its setting. Raises Damaged if there is no such setting."""
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
