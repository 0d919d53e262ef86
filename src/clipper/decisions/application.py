"""What one application writes into the decision log: which of its queries, and what of each."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from clipper.decisions.log import DecisionLog
from clipper.decisions.records import DECISION, MAX_OUTPUTS_BYTES, BriefDecision, Decision, Judgement, Setting

# By this step numbers that follow each other are spread evenly over 32 bits: 2^32 over the golden ratio (Knuth, "The
# Art of Computer Programming", 6.4).
_STEP = 0x9E3779B1
_RANGE = 1 << 32
# All ids of queries are below. Feedback on an unknown one may name any number.
QUERY_IDS = 1 << 53


# An application's queries that are made records of in one go, within some 40 us: several times quicker than each
# between others' work, when processors have to fetch the code and the data for it anew.
HELD = 64
# Longer ones are not held: so many records stay well below the smallest segment.
_MAX_HELD_OUTPUT, _MAX_HELD_CONTEXT = 256, 64
# What one model's output may have beside an answer that is another.
_ALONE_BYTES = MAX_OUTPUTS_BYTES // 2


class Asked(Protocol):
    """A query that was answered: see ``selection.query.Query``. ``arrival_s`` is by the monotonic clock."""

    id: int
    context: str | None
    features: bytes | None
    arrival_s: float
    choice: Any
    pinned: str | None
    first_output: bytes | None
    output: bytes | None
    confidence: float
    reason: str | None

    @property
    def raw_confidence(self) -> float | None: ...

    @property
    def outputs(self) -> Mapping[str, bytes]: ...


class ApplicationDecisions:
    """
    Args:
        rate: the share of queries that are logged, above 0. Which they are is told by their ids, so that feedback
            finds the same ones hours later, and in another worker.
    """

    def __init__(self, log: DecisionLog, setting: Setting, rate: float) -> None:
        self._log = log
        default = setting.default
        if default is not None and len(default) > MAX_OUTPUTS_BYTES:
            default = default[:MAX_OUTPUTS_BYTES]
        self._setting = Setting(setting.application, setting.policy, setting.models, setting.versions, default)
        self._below = int(rate * _RANGE)
        self._held: list[tuple[Asked, float]] = []
        self._block = -1
        self._place = 0

    def takes(self, query_id: int) -> bool:
        return (query_id * _STEP) % _RANGE < self._below

    def add(self, query: Asked, latency_s: float) -> None:
        """A query has been answered. On the query path, and so it is only held, where nothing of it will change."""
        if self._below < _RANGE and not self.takes(query.id):
            return
        output, context = query.output, query.context
        is_short = output is not None and len(output) <= _MAX_HELD_OUTPUT
        is_short = is_short and (context is None or len(context) <= _MAX_HELD_CONTEXT)
        if is_short and output is query.first_output and len(query.choice.models) == 1:
            self._held.append((query, latency_s))
            if len(self._held) == 1:
                self._log.wait_for(self)
            elif len(self._held) >= HELD:
                self.write_held()
        else:
            self._log.add((self._record(query, latency_s),))

    def write_held(self) -> None:
        """Give the log the records of what is held."""
        held, self._held = self._held, []
        if not held:
            return
        place, began_s = self._place_in_block(), self._log.monotonic_began_s
        records: list[Decision | BriefDecision | Judgement] = []
        for query, latency_s in held:
            choice = query.choice
            is_chosen = query.pinned is None and choice.beliefs is None and not choice.steps
            if is_chosen and query.features is None and query.raw_confidence is None:
                records.append(
                    (
                        DECISION,
                        place,
                        query.id,
                        query.arrival_s + began_s,
                        latency_s,
                        choice.models,
                        choice.shares,
                        (query.output,),
                        None,
                        query.confidence,
                        query.reason,
                        query.context,
                    )
                )
            else:
                records.append(self._record(query, latency_s))
        self._log.add(records)

    def _place_in_block(self) -> int:
        """Where its setting is in the block that the log is at."""
        if self._block != self._log.block:
            self._place = self._log.enter(self._setting)
            self._block = self._log.block
        return self._place

    def _record(self, query: Asked, latency_s: float) -> Decision:
        """For the block that the log is at."""
        place = self._place_in_block()
        choice, answer = query.choice, query.output
        models: tuple[str, ...] = ()
        shares: tuple[float, ...] = ()
        outputs: tuple[bytes | None, ...] = ()
        beliefs, is_cut = None, False
        steps: tuple[tuple[int, float, float], ...] = ()
        if choice is not None:
            models, shares, beliefs = choice.models, choice.shares, choice.beliefs
            if choice.steps:
                steps = tuple((step.asked, step.confidence, step.probability) for step in choice.steps)
            if len(models) == 1 and answer is query.first_output and (answer is None or len(answer) <= _ALONE_BYTES):
                outputs, answer = (answer,), None
            else:
                outputs, answer, is_cut = _bounded(models, query.outputs, answer)
        return Decision(
            place,
            query.id,
            query.arrival_s + self._log.monotonic_began_s,
            latency_s,
            models,
            shares,
            outputs,
            answer,
            query.confidence,
            query.reason,
            query.context,
            query.pinned,
            beliefs,
            is_cut,
            query.raw_confidence,
            steps,
            query.features,
        )

    def judge(
        self,
        query_id: int,
        label: bytes | None,
        reward: float | None,
        losses: Mapping[str, float],
        answer_loss: float | None,
    ) -> None:
        """Feedback on a query has been learned."""
        if self.takes(query_id):
            short = _short(label)
            judgement = Judgement(
                self._setting.application, query_id, time.time(), short, reward, dict(losses), answer_loss
            )
            self._log.add((judgement,))

    def judge_late(
        self, query_id: int, label: bytes | None, reward: float | None, loss: str, loss_parameters: Mapping[str, Any]
    ) -> bool:
        """Feedback has come on a query that is not known any more. Returns whether it is written to the log."""
        is_possible = 0 <= query_id < QUERY_IDS and (reward is None or 0.0 <= reward <= 1.0)
        if not is_possible or not self.takes(query_id):
            return False
        judgement = Judgement(
            self._setting.application,
            query_id,
            time.time(),
            _short(label),
            reward,
            None,
            None,
            loss,
            dict(loss_parameters),
        )
        self._log.add((judgement,))
        return True


def _bounded(
    models: tuple[str, ...], known: Mapping[str, bytes], answer: bytes | None
) -> tuple[tuple[bytes | None, ...], bytes | None, bool]:
    """Outputs and answer, each of at most its part of the bound, and whether one had to be cut."""
    limit = MAX_OUTPUTS_BYTES // (len(models) + 1)
    outputs = [known.get(model) for model in models]
    if len(models) == 1 and answer == outputs[0]:
        answer = None
    is_cut = any(len(text) > limit for text in (*outputs, answer) if text is not None)
    cut = tuple(None if output is None else output[:limit] for output in outputs)
    return cut, None if answer is None else answer[:limit], is_cut


def _short(label: bytes | None) -> bytes | None:
    return label if label is None or len(label) <= MAX_OUTPUTS_BYTES else None


def versions_of(models: Sequence[str], targets: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Of each model the version that runs, as the application's targets tell."""
    return tuple(None if targets.get(model) is None else targets[model].model.version for model in models)
