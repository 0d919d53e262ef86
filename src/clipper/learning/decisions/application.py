"""An application's part in the decision log: decides which queries are logged, and makes their records."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.records import DECISION, MAX_OUTPUTS_BYTES, BriefDecision, Decision, Judgement, Setting
from clipper.learning.decisions.redaction import Redaction
from clipper.settings.application import Selection
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
# Queries with longer outputs, contexts or inputs are not held, so that the records stay well below the smallest
# segment.
_MAX_HELD_OUTPUT, _MAX_HELD_CONTEXT, _MAX_HELD_INPUT = 256, 64, 256
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
    path: Any

    @property
    def raw_confidence(self) -> float | None: ...

    def texts(self, text_of: Callable[[Output], bytes]) -> Mapping[str, bytes]: ...


class ApplicationDecisions:
    """Logs the decisions of an application.

    Args:
        setting: the settings that decide the queries.
        rate: share of queries that are logged, above 0. The id decides, so that feedback finds the same queries hours
            later, and in another worker.
        redaction: what is left out of inputs, outputs and labels.
    """

    def __init__(
        self, log: DecisionLog, setting: Setting, rate: float, redaction: Redaction, keeps_inputs: bool = False
    ) -> None:
        self._log, self._redaction = log, redaction
        default = setting.default
        if default is not None:
            default = redaction.text(default)[:MAX_OUTPUTS_BYTES] or None
        input_type = str(redaction.input_type) if keeps_inputs and redaction.input_type is not None else ""
        # Each block repeats the setting, which a type with too many names would fill.
        self._keeps_inputs = 0 < len(input_type) <= log.most_input_bytes
        self._setting = msgspec.structs.replace(
            setting, default=default, input_type=input_type if self._keeps_inputs else None
        )
        self._below = int(rate * _RANGE)
        self._held: list[tuple[Asked, bytes | None, float]] = []
        self._block = -1
        self._place = 0

    def takes(self, query_id: int) -> bool:
        return (query_id * _STEP) % _RANGE < self._below

    def add(self, query: Asked, row: bytes | None, latency_s: float) -> None:
        """Log a query with its ``row``. To keep the query path short, a query that cannot change is only held."""
        if self._below < _RANGE and not self.takes(query.id):
            return
        output, context = query.output, query.context
        if row is not None and (not self._keeps_inputs or len(row) > self._log.most_input_bytes):
            row = None
        is_short = output is not None and not is_long(output) and len(bytes(output)) <= _MAX_HELD_OUTPUT
        is_short = is_short and (context is None or len(context) <= _MAX_HELD_CONTEXT)
        is_short = is_short and (row is None or len(row) <= _MAX_HELD_INPUT)
        if is_short and output is query.first_output and len(query.choice.models) == 1:
            self._held.append((query, row, latency_s))
            if len(self._held) == 1:
                self._log.wait_for(self.write_held)
            elif len(self._held) >= HELD:
                self.write_held()
        else:
            self._log.add((self._record(query, row, latency_s),))

    def write_held(self) -> None:
        """Write the records of the held queries to the log."""
        held, self._held = self._held, []
        if not held:
            return
        place, began_s = self._place_in_block(), self._log.monotonic_began_s
        records: list[Decision | BriefDecision | Judgement] = []
        for query, row, latency_s in held:
            choice = query.choice
            is_chosen = query.pinned is None and choice.beliefs is None and not choice.steps
            is_chosen = is_chosen and query.path is None and row is None and self._redaction.is_empty
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
                records.append(self._record(query, row, latency_s))
        self._log.add(records)

    def _place_in_block(self) -> int:
        """Return the place of the setting in the log's present block."""
        if self._block != self._log.block:
            self._place = self._log.enter(self._setting)
            self._block = self._log.block
        return self._place

    def _text(self, output: Output) -> bytes:
        """Return an output's text. A byte more than is written shows that it was cut; none is left if all was."""
        return text_start(self._redaction.output(output), MAX_OUTPUTS_BYTES + 1)

    def _record(self, query: Asked, row: bytes | None, latency_s: float) -> Decision:
        """Make a record for the log's present block."""
        place = self._place_in_block()
        choice, answer = query.choice, None if query.output is None else self._text(query.output)
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
                and (answer is None or 0 < len(answer) <= _ALONE_BYTES)
            ):
                outputs, answer = (answer,), None
            else:
                outputs, answer, is_cut = _bounded(models, query.texts(self._text), answer)
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
            self._redaction.features(query.features),
            query.candidates,
            () if query.path is None else query.path.steps,
            None if row is None else self._redaction.row(row),
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

    def judge_late(self, query_id: int, label: bytes | None, reward: float | None, selection: Selection) -> bool:
        """Log feedback on a query that is no longer known. Return whether it was written to the log."""
        is_possible = 0 <= query_id < QUERY_IDS and (reward is None or 0.0 <= reward <= 1.0)
        if not is_possible or not self.takes(query_id):
            return False
        loss = selection.loss, dict(selection.loss_parameters), selection.label_field
        self._add_judgement(query_id, label, reward, None, None, *loss)
        return True

    def _add_judgement(self, query_id: int, label: bytes | None, *how: Any) -> None:
        """Log feedback; ``how`` are the fields of ``Judgement`` after the label."""
        short = None if label is None else self._redaction.label(label)
        if not short or len(short) > MAX_OUTPUTS_BYTES:
            short = None
        self._log.add((Judgement(self._setting.application, query_id, time.time(), short, *how),))


def _bounded(
    models: tuple[str, ...], known: Mapping[str, bytes], answer: bytes | None
) -> tuple[tuple[bytes | None, ...], bytes | None, bool]:
    """Return outputs and answer, each cut to its part of the bound, and whether any was cut."""
    limit = MAX_OUTPUTS_BYTES // (len(models) + 1)
    outputs = [known.get(model) for model in models]
    if len(models) == 1 and answer == outputs[0]:
        answer = None
    is_cut = any(not 0 < len(text) <= limit for text in (*outputs, answer) if text is not None)
    cut = tuple(None if output is None else output[:limit] for output in outputs)
    return cut, None if answer is None else answer[:limit], is_cut


def versions_of(models: Sequence[str], targets: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the running version of each model, from the application's targets."""
    return tuple(None if targets.get(model) is None else targets[model].model.version for model in models)
