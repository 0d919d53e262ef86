"""The counters of an application: its queries, and its feedback."""

from collections import Counter
from collections.abc import Container, Mapping
from itertools import chain, islice
from types import MappingProxyType

from clipper.control.histogram import Histogram
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    LATENCY_BOUNDS_S,
    MAX_FORMER_MODELS,
    ApplicationStatistics,
    ModelSelectionStatistics,
    SelectionStatistics,
)

# Sets of models that are counted separately. An ensemble of sixteen that asks only those with time has 65,536 sets.
MAX_SETS = 1000
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
# Characters of an explanation that a reading has: a model's error is as long at most, and a user's policy may say more.
MAX_EXPLANATION = 300


class ApplicationCounts:
    """The query path increments these counters, so they are plain attributes.

    Most are those of ``SelectionStatistics``.

    Attributes:
        selected: how often each set of models was asked together, without those of ``only_times``.
        only_models, only_times: the models that every query asks now, if there is no choice, and how often they were
            asked.
        missing: answers, defaults and errors that were sent without this selected model's output.
        scored, loss, weight, weighted_loss: sums by model; see ``ModelSelectionStatistics``. ``keep`` bounds their
            number.
        explanations: by reason, the explanation of the latest default or error.
    """

    def __init__(self) -> None:
        self.queries = self.slo_misses = self.policy_errors = 0
        self.defaults: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.explanations: dict[str, str] = {}
        self.latency_s = Histogram(LATENCY_BOUNDS_S)
        self.confidence = Histogram(CONFIDENCE_BOUNDS)
        self.selected: Counter[tuple[str, ...]] = Counter()
        self.only_models: tuple[str, ...] = ()
        self.only_times = 0
        self.stages: Counter[int] = Counter()
        self.missing: Counter[str] = Counter()
        self.scored: Counter[str] = Counter()
        self.loss: dict[str, float] = {}
        self.answers_scored = 0
        self.answer_loss = 0.0
        self.answer_loss_by_reason: dict[str, float] = {}
        self.weight: dict[str, float] = {}
        self.weighted_loss: dict[str, float] = {}
        self.context_answers = 0
        self.context_loss = 0.0
        self.feedback: Counter[str] = Counter()
        self.spent = 0.0
        # How often each model had been asked when it was last charged, and the costs since then.
        self._charged: Counter[str] = Counter()
        self._costs: Mapping[str, float] = NO_WEIGHTS
        # Models that have counts and are no longer asked, the one that was not asked for longest first.
        self._former: dict[str, None] = {}
        self.last_policy_error: str | None = None
        self.why_no_policy: str | None = None

    def fail_policy(self, problem: str) -> None:
        """Count a failure of the user's own policy or loss."""
        self.policy_errors += 1
        self.last_policy_error = problem

    def follow_only(self, models: tuple[str, ...]) -> None:
        """Count in ``only_times``, from now on, how often these models are asked, which costs next to nothing."""
        if self.only_times:
            self.selected[self.only_models] += self.only_times
        self.only_models, self.only_times = models, 0

    def charge(self, costs: Mapping[str, float]) -> None:
        """Charge the queries since the last time for the models that they asked; from now on at these costs."""
        selected = self._selected()
        self.spent += sum(
            (times - self._charged[model]) * self._costs.get(model, 0.0) for model, times in selected.items()
        )
        self._charged, self._costs = selected, costs

    def keep(self, models: Container[str]) -> None:
        """Note which models are asked from now on, and forget the oldest of too many former ones.

        Each ramped deployment has a name of its own, so their number would grow for as long as the application exists.
        """
        by_model = (self.missing, self.scored, self.loss, self.weight, self.weighted_loss)
        counted = chain(self._former, self._selected(), *by_model)
        self._former = {model: None for model in counted if model not in models}
        gone = set(islice(self._former, max(len(self._former) - MAX_FORMER_MODELS, 0)))
        if not gone:
            return
        self.charge(self._costs)
        self.follow_only(self.only_models)
        self.selected = Counter({(name,): times for name, times in self._selected().items() if name not in gone})
        for each in (self._former, *by_model, self._charged):
            for model in gone:
                each.pop(model, None)

    def go_on(self, stage: int, models: tuple[str, ...]) -> None:
        """Count a query that asks further models."""
        self.stages[stage] += 1
        self.selected[models] += 1

    def bound_sets(self) -> None:
        """Count sets by model once there are too many.

        A user's policy may always ask new sets, so this is called for each of its queries, and else for each reading.
        """
        if len(self.selected) > MAX_SETS:
            self.follow_only(self.only_models)
            self.selected = Counter({(model,): times for model, times in self._selected().items()})

    def learn(
        self,
        losses: dict[str, float],
        answer_loss: float | None,
        reason: str = "wrong",
        weights: Mapping[str, float] = NO_WEIGHTS,
        context_loss: float | None = None,
    ) -> None:
        """Count an observation.

        Args:
            answer_loss: loss of the answer; None if the feedback does not say.
            weights: the weights of models that were picked by the query's own data; other models count as 1.
            context_loss: what the query adds to the loss of its context's best model; None if the policy does not learn
                by the context.
        """
        self.feedback["joined"] += 1
        for model, loss in losses.items():
            weight = weights.get(model, 1.0)
            self.scored[model] += 1
            self.loss[model] = self.loss.get(model, 0.0) + loss
            self.weight[model] = self.weight.get(model, 0.0) + weight
            self.weighted_loss[model] = self.weighted_loss.get(model, 0.0) + weight * loss
        if answer_loss is not None:
            if context_loss is not None:
                self.context_answers += 1
                self.context_loss += context_loss
            self.answers_scored += 1
            self.answer_loss += answer_loss
            lost = self.answer_loss_by_reason
            lost[reason] = lost.get(reason, 0.0) + answer_loss

    def statistics(
        self,
        name: str,
        contexts: int,
        costs: Mapping[str, float],
        calibration_error: float | None = None,
        id_: str = "",
    ) -> ApplicationStatistics:
        """Return the counters. ``costs`` has the known costs of asking models."""
        self.charge(costs)
        self.bound_sets()
        return ApplicationStatistics(
            name=name,
            queries=self.queries,
            defaults=dict(self.defaults),
            errors=dict(self.errors),
            slo_misses=self.slo_misses,
            latency_s=self.latency_s.data(),
            selection=SelectionStatistics(
                models=self._models(costs),
                confidence=self.confidence.data(),
                feedback=dict(self.feedback),
                answers_scored=self.answers_scored,
                answer_loss=self.answer_loss,
                answer_loss_by_reason=dict(self.answer_loss_by_reason),
                contexts=contexts,
                policy_errors=self.policy_errors,
                last_policy_error=self.last_policy_error,
                why_no_policy=self.why_no_policy,
                stages={str(stage): times for stage, times in sorted(self.stages.items())},
                calibration_error=calibration_error,
                context_answers=self.context_answers,
                context_loss=self.context_loss,
                spent=self.spent,
            ),
            id=id_,
        )

    def counted(self) -> int:
        """Return a number that grows with each query, answer, piece of feedback and failure of the policy."""
        answers = sum(self.latency_s.counts) + sum(self.defaults.values()) + sum(self.errors.values())
        return self.queries + answers + sum(self.feedback.values()) + self.policy_errors

    def told_explanations(self) -> dict[str, str]:
        """Return the explanations in the length in which they are told."""
        # A user's policy may say what no encoding has, such as half of a surrogate pair.
        return {
            reason: text[:MAX_EXPLANATION].encode("utf-8", "backslashreplace").decode()
            for reason, text in self.explanations.items()
        }

    def _models(self, costs: Mapping[str, float]) -> dict[str, ModelSelectionStatistics]:
        selected = self._selected()
        absent = 0.0 if costs else None
        return {
            model: ModelSelectionStatistics(
                selected[model],
                self.missing[model],
                self.scored[model],
                self.loss.get(model, 0.0),
                costs.get(model, absent),
                self.weight.get(model, 0.0),
                self.weighted_loss.get(model, 0.0),
            )
            for model in sorted(selected.keys() | self.scored.keys() | self.missing.keys())
        }

    def _selected(self) -> Counter[str]:
        selected: Counter[str] = Counter()
        for models, times in (*self.selected.items(), (self.only_models, self.only_times)):
            for model in models:
                selected[model] += times
        return selected
