"""Selects a log's decisions that show a model's loss, with their probabilities."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from clipper.errors import InvalidArgument
from clipper.learning.decisions.evaluation.beliefs import propensity
from clipper.learning.decisions.joining import Joined
from clipper.learning.decisions.records import candidates_of
from clipper.learning.mathematics.losses import LOSSES, loss_of_reward
from clipper.learning.policies.by_name import make_loss
from clipper.values.outputs.output import judged_names, judged_text, read_record

# A sample takes some 300 bytes. The latest samples are kept.
MAX_SAMPLES = 500_000
# No policy makes choices with smaller probabilities: they are rounding errors, and one query would outweigh all others.
LEAST_PROPENSITY = 1e-9


@dataclass(frozen=True, slots=True)
class Sample:
    """A query with feedback.

    Attributes:
        time_s, feedback_time_s: in seconds since 1970.
        model: the chosen model.
        propensity: the probability of that choice, at least ``LEAST_PROPENSITY``.
        loss: loss of the model's answer, from 0 to 1.
        features: raw buffer of the query's features, as in ``Decision``; None if it had none.
    """

    time_s: float
    feedback_time_s: float
    candidates: tuple[str, ...]
    versions: tuple[str | None, ...]
    context: str | None
    model: str
    propensity: float
    loss: float
    features: bytes | None = None


@dataclass(slots=True)
class Samples:
    """The samples of a log.

    Attributes:
        taken: samples in the order of their time.
        left_out: number of decisions that are not samples, by reason.
    """

    taken: list[Sample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def samples_of(log: Iterable[Joined]) -> Samples:
    found = Samples()
    for each in log:
        sample = _sample(each)
        if isinstance(sample, Sample):
            found.taken.append(sample)
            if len(found.taken) >= 2 * MAX_SAMPLES:
                _keep_latest(found)
        else:
            found.left_out[sample] += 1
    _keep_latest(found)
    return found


def _keep_latest(found: Samples) -> None:
    found.taken.sort(key=lambda sample: sample.time_s)
    if len(found.taken) > MAX_SAMPLES:
        found.left_out[f"older than the latest {MAX_SAMPLES:,d}"] += len(found.taken) - MAX_SAMPLES
        del found.taken[:-MAX_SAMPLES]


def _sample(joined: Joined) -> Sample | str:
    """Return the sample of a decision, or why there is none."""
    setting, decision, judgement = joined.setting, joined.decision, joined.judgement
    if decision.pinned is not None:
        return "the query named a version, which bypasses the policy"
    if not decision.models:
        return "no model was chosen"
    if decision.steps:
        # The queries that stopped early are the easy ones: taking them alone would flatter the models asked first.
        return "its models were asked one after another"
    if len(decision.models) > 1:
        return "several models answered together"
    if judgement is None:
        return "no feedback has come"
    (model,) = decision.models
    # The target chooses among the same models as the policy in force: those that had time.
    candidates, versions = candidates_of(setting, decision)
    chance = propensity(model, candidates, decision.shares[0], decision.beliefs)
    if not chance >= LEAST_PROPENSITY:
        return "the probability of its choice is not known"
    loss = _loss(joined, model)
    if loss is None:
        return "its feedback cannot be scored any more"
    if not 0 <= loss <= 1:
        return "its loss is not from 0 to 1"
    return Sample(
        decision.time_s,
        judgement.time_s,
        candidates,
        versions,
        decision.context,
        model,
        min(chance, 1.0),
        loss,
        decision.features,
    )


def _loss(joined: Joined, model: str) -> float | None:
    """Return the chosen model's loss; computed from the logged outputs if the feedback came too late to be learned."""
    judgement, (output,) = joined.judgement, joined.decision.outputs
    assert judgement is not None
    if judgement.losses is not None:
        # A model that had no time has no loss of its own; its user got the default's, or none.
        without = judgement.answer_loss if joined.decision.reason is not None else None
        return judgement.losses.get(model, without)
    if judgement.reward is not None:
        return loss_of_reward(judgement.reward)
    if judgement.label is None or output is None or joined.decision.is_cut or judgement.loss is None:
        return None
    if judgement.loss not in LOSSES:  # a user's own loss runs only in workers
        return None
    is_named = judgement.label_field is not None
    names = judged_names(judgement.label_field, is_log=judgement.loss == "log")
    # The log does not say whether an object was a record. A label that is an object is about all of it.
    compared = output if not is_named and judgement.label.startswith(b"{") else read_record(output)
    try:
        loss = make_loss(judgement.loss, judgement.loss_parameters)
        return loss(judged_text(compared, names, is_named=is_named), judgement.label)
    except InvalidArgument:
        return None
