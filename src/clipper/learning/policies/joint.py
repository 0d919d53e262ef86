"""Policies whose models all answer together."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from random import Random

from clipper.learning.policies.combine import Combined, Combiner, guessed_loss, vote_is_settled
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals


class Joint(Policy):
    """Asks all models; each has a share of the answer, which is computed once for a state.

    Attributes:
        answer: ``vote``, ``mean`` or ``median``.
    """

    feedback = "all"
    goes_by = "nothing"

    answer: str
    _combiner: Combiner

    @abstractmethod
    def shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
        """Return each model's share of the answer, (models,); they add up to 1."""
        ...

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        choice: Choice | None = totals.memo.get((self, models))
        if choice is None:
            choice = totals.memo[self, models] = Choice(models, self.shares(models, totals))
        return choice

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        return self._combiner(choice.models, choice.shares, outputs)

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        # Any further output moves a mean.
        votes = self.answer == "vote"
        return votes and vote_is_settled(choice.models, choice.shares, outputs, lost, threshold)

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """Call ``observe`` with a guess for models that gave another output: see ``guessed_loss``."""
        if not losses:
            return {}
        guess = guessed_loss(min(losses.values()))
        return self.observe(choice, {**dict.fromkeys(choice.models, guess), **losses}, totals, query)
