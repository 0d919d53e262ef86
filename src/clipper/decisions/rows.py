"""A decision and its feedback as one flat row, for export."""

import struct
from typing import Any

import msgspec

from clipper.decisions.joining import Joined
from clipper.decisions.records import Decision, Judgement, Setting


class Row(msgspec.Struct, frozen=True):
    """One query. Lists by model are in the order of ``models``. JSON of models and clients is text.

    Attributes:
        time_s, feedback_time_s: in seconds since 1970.
        candidates, candidate_versions: the models that could be chosen, and the running version of each.
        shares: for a chosen model, the probability of its choice; for several, their weights in the answer; None if
            only ``beliefs`` determine it.
        beliefs: by candidate: parameters of the Beta distribution that Thompson sampling drew from.
        output: the answer; None for an error.
        steps: if the policy asks models one after another: for each step the number of models asked so far, the
            confidence by then, and the probability of going on.
        is_cut: whether some output is only the beginning of what it was.
        losses: by model, from feedback.
        loss: loss of the answer, from feedback; 1 for an error; None if it is not known.
        features: the query's features.
        learned: whether the policy learned from the feedback; it does not from late feedback.
    """

    query_id: int
    time_s: float
    application: str
    policy: str
    candidates: tuple[str, ...]
    candidate_versions: tuple[str | None, ...]
    context: str | None
    pinned: str | None
    models: tuple[str, ...]
    shares: tuple[float | None, ...]
    beliefs: tuple[tuple[float, float], ...] | None
    outputs: tuple[str | None, ...]
    output: str | None
    is_cut: bool
    default: bool
    reason: str | None
    confidence: float
    raw_confidence: float | None
    latency_ms: float
    feedback_count: int
    feedback_time_s: float | None
    label: str | None
    reward: float | None
    losses: dict[str, float] | None
    loss: float | None
    learned: bool | None
    steps: tuple[tuple[int, float, float], ...] = ()
    features: tuple[float, ...] | None = None


def row_of(joined: Joined) -> Row:
    setting, decision, judgement = joined.setting, joined.decision, joined.judgement
    answer, packed = answer_of(setting, decision), decision.features
    return Row(
        query_id=decision.query_id,
        time_s=decision.time_s,
        application=setting.application,
        policy=setting.policy,
        candidates=setting.models,
        candidate_versions=setting.versions,
        context=decision.context,
        pinned=decision.pinned,
        models=decision.models,
        shares=tuple(decision.shares) if decision.beliefs is None else (None,) * len(decision.models),
        beliefs=decision.beliefs,
        outputs=tuple(None if output is None else _text(output) for output in decision.outputs),
        output=None if answer is None else _text(answer),
        is_cut=decision.is_cut,
        default=decision.reason is not None and answer is not None,
        reason=decision.reason,
        confidence=decision.confidence,
        raw_confidence=decision.raw_confidence,
        latency_ms=decision.latency_s * 1000,
        feedback_count=joined.feedback_count,
        feedback_time_s=None if judgement is None else judgement.time_s,
        label=None if judgement is None or judgement.label is None else _text(judgement.label),
        reward=None if judgement is None else judgement.reward,
        losses=None if judgement is None else judgement.losses,
        loss=None if judgement is None else _loss(judgement),
        learned=None if judgement is None else judgement.losses is not None,
        steps=decision.steps,
        features=None if packed is None else struct.unpack_from(f"<{len(packed) // 8}d", packed),
    )


def answer_of(setting: Setting, decision: Decision) -> bytes | None:
    """Return the JSON text of the answer; None if it was an error."""
    if decision.reason is not None:
        return setting.default
    if decision.answer is not None:
        return decision.answer
    return decision.outputs[0] if len(decision.outputs) == 1 else None


def _loss(judgement: Judgement) -> float | None:
    if judgement.answer_loss is not None:
        return judgement.answer_loss
    return None if judgement.reward is None else 1.0 - judgement.reward


def _text(json: bytes) -> str:
    # A text that was cut may end within a character.
    return json.decode(errors="replace")


def as_json(row: Row) -> bytes:
    """Encode one line. JSON of models and clients is copied as it is, if it is whole."""
    fields: dict[str, Any] = msgspec.structs.asdict(row)
    fields["outputs"] = {model: _value(output) for model, output in zip(row.models, row.outputs) if output is not None}
    fields["output"], fields["label"] = _value(row.output), _value(row.label)
    return msgspec.json.encode(fields) + b"\n"


def _value(text: str | None) -> Any:
    if text is None:
        return None
    raw = text.encode()
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return msgspec.Raw(raw)
