"""An application's part in the decision log: decides which queries are logged, and makes their records."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.records import DECISION, MAX_OUTPUTS_BYTES, BriefDecision, Decision, Judgement, Setting
from clipper.values.outputs.output import Output, is_long, text_start

# Multiples of this step are spread evenly over 32 bits: 2^32 over the golden ratio (Knuth, "The Art of Computer
# Programming", 6.4).
_STEP = 0x9E3779B1
_RANGE = 1 << 32
# Bound of query ids. Feedback may name any number.
QUERY_IDS = 1 << 53


# Records are made for this many held queries at once, in some 40 us. That is several times faster than making them one
# by one between other work, when the processor must load the code and data again.
HELD = 64
# Queries with longer outputs or contexts are not held, so that the records stay well below the smallest segment.
_MAX_HELD_OUTPUT, _MAX_HELD_CONTEXT = 256, 64
# Bound of the output of a single model whose answer differs from it.
_ALONE_BYTES = MAX_OUTPUTS_BYTES // 2


class Asked(Protocol):
    """An answered query: see ``selection.query.Query``. ``arrival_s`` is on the monotonic clock."""

    id: int
    context: str | None
    features: bytes | None
    arrival_s: float
    choice: Any
    pinned: str | None
    first_output: Output | None
    output: Output | None
    confidence: float
    reason: str | None
    candidates: tuple[str, ...] | None

    @property
    def raw_confidence(self) -> float | None: ...

    def output_starts(self, most: int) -> Mapping[str, bytes]: ...


class ApplicationDecisions:
    """Logs the decisions of an application.

    Args:
        log: the worker's decision log.
        setting: the settings that decide the queries.
        rate: share of queries that are logged, above 0. The id decides, so that feedback finds the same queries hours
            later, and in another worker.
    """

    def __init__(self, log: DecisionLog, setting: Setting, rate: float) -> None:
        self._log = log
        default = setting.default
        if default is not None and len(default) > MAX_OUTPUTS_BYTES:
            default = default[:MAX_OUTPUTS_BYTES]
        self._setting = msgspec.structs.replace(setting, default=default)
        self._below = int(rate * _RANGE)
        self._held: list[tuple[Asked, float]] = []
        self._block = -1
        self._place = 0

    def takes(self, query_id: int) -> bool:
        return (query_id * _STEP) % _RANGE < self._below

    def add(self, query: Asked, latency_s: float) -> None:
        """Log an answered query. This is on the query path, so a query that cannot change any more is only held."""
        if self._below < _RANGE and not self.takes(query.id):
            return
        output, context = query.output, query.context
        is_short = output is not None and not is_long(output) and len(bytes(output)) <= _MAX_HELD_OUTPUT
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
        """Write the records of the held queries to the log."""
        held, self._held = self._held, []
        if not held:
            return
        place, began_s = self._place_in_block(), self._log.monotonic_began_s
        records: list[Decision | BriefDecision | Judgement] = []
        for query, latency_s in held:
            choice = query.choice
            is_chosen = query.pinned is None and choice.beliefs is None and not choice.steps
            if is_chosen and query.candidates is None and query.features is None and query.raw_confidence is None:
                records.append(
                    (
                        DECISION,
                        place,
                        query.id,
                        query.arrival_s + began_s,
                        latency_s,
                        choice.models,
                        choice.shares,
                        (None if query.output is None else bytes(query.output),),
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
        """Return the place of the setting in the log's present block."""
        if self._block != self._log.block:
            self._place = self._log.enter(self._setting)
            self._block = self._log.block
        return self._place

    def _record(self, query: Asked, latency_s: float) -> Decision:
        """Make a record for the log's present block."""
        place = self._place_in_block()
        # A byte more than is written shows that an output was cut.
        most = MAX_OUTPUTS_BYTES + 1
        choice, answer = query.choice, None if query.output is None else text_start(query.output, most)
        models: tuple[str, ...] = ()
        shares: tuple[float, ...] = ()
        outputs: tuple[bytes | None, ...] = ()
        beliefs, is_cut = None, False
        steps: tuple[tuple[int, float, float], ...] = ()
        if choice is not None:
            models, shares, beliefs = choice.models, choice.shares, choice.beliefs
            if choice.steps:
                steps = tuple((step.asked, step.confidence, step.probability) for step in choice.steps)
            if (
                len(models) == 1
                and query.output is query.first_output
                and (answer is None or len(answer) <= _ALONE_BYTES)
            ):
                outputs, answer = (answer,), None
            else:
                outputs, answer, is_cut = _bounded(models, query.output_starts(most), answer)
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
            query.candidates,
        )

    def judge(
        self,
        query_id: int,
        label: bytes | None,
        reward: float | None,
        losses: Mapping[str, float],
        answer_loss: float | None,
    ) -> None:
        """Log feedback that was learned from."""
        if self.takes(query_id):
            self._add_judgement(query_id, label, reward, dict(losses), answer_loss)

    def judge_late(
        self,
        query_id: int,
        label: bytes | None,
        reward: float | None,
        loss: str,
        loss_parameters: Mapping[str, Any],
        label_field: str | None = None,
    ) -> bool:
        """Log feedback on a query that is no longer known. Return whether it was written to the log."""
        is_possible = 0 <= query_id < QUERY_IDS and (reward is None or 0.0 <= reward <= 1.0)
        if not is_possible or not self.takes(query_id):
            return False
        self._add_judgement(query_id, label, reward, None, None, loss, dict(loss_parameters), label_field)
        return True

    def _add_judgement(self, query_id: int, label: bytes | None, *how: Any) -> None:
        """Log feedback; ``how`` are the fields of ``Judgement`` after the label."""
        short = label if label is None or len(label) <= MAX_OUTPUTS_BYTES else None
        self._log.add((Judgement(self._setting.application, query_id, time.time(), short, *how),))


def _bounded(
    models: tuple[str, ...], known: Mapping[str, bytes], answer: bytes | None
) -> tuple[tuple[bytes | None, ...], bytes | None, bool]:
    """Return outputs and answer, each cut to its part of the bound, and whether any was cut."""
    limit = MAX_OUTPUTS_BYTES // (len(models) + 1)
    outputs = [known.get(model) for model in models]
    if len(models) == 1 and answer == outputs[0]:
        answer = None
    is_cut = any(len(text) > limit for text in (*outputs, answer) if text is not None)
    cut = tuple(None if output is None else output[:limit] for output in outputs)
    return cut, None if answer is None else answer[:limit], is_cut


def versions_of(models: Sequence[str], targets: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the running version of each model, from the application's targets."""
    return tuple(None if targets.get(model) is None else targets[model].model.version for model in models)
