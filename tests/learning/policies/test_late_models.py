"""A model that is right and never in time, beside one that is in time and errs: in simulation, whom a policy asks."""

from random import Random

import numpy as np
import pytest

from clipper.control.feedback import Feedback
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.losses import ZeroOne
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_policy
from clipper.learning.policies.policy import JudgedQuery, Policy, QueryView
from clipper.worker.selection.feedback.scoring import default_loss, lesson, score
from tests.learning.policies.bandits import answer

ASK_ALL = ("exp4", "ensemble", "stacking")
ASK_ONE = [name for name in POLICIES if name not in ("single", "weighted", *ASK_ALL)]
# Late, with a default that is never right: what it would have answered does not matter to who asked.
ERRS = {"slow": 0.02, "fast": 0.2}
DEFAULT, LABEL = b"-1", b"0"
QUERIES, LAST = 1000, 400
# All queries alike, for those that go by them.
FEATURES = np.ones(2).tobytes()


def play(policy: Policy, half_life: int | None, seed: int) -> list[str]:
    """Ask, and tell the label; whose model was asked each time."""
    ledger, random, noise = Ledger(half_life), Random(seed), Random(seed + 1)
    asked = []
    for _ in range(QUERIES):
        totals = ledger.totals()
        choice = policy.select(("slow", "fast"), totals, QueryView(packed_features=FEATURES), random)
        (model,) = choice.models
        given = answer(float(noise.random() < ERRS[model]), noise)
        in_time = {} if model == "slow" else {model: given}
        feedback = Feedback("i", label=LABEL)
        lost = default_loss(feedback, ZeroOne(), DEFAULT, was_answered=not in_time)
        losses = score(feedback, ZeroOne(), choice, in_time, lost)
        ledger.add(
            ledger.entries(
                lesson(policy, choice, losses, totals, JudgedQuery(packed_features=FEATURES), missed={"slow": 1.0})
            )
        )
        ledger.drop_stale()
        asked.append(model)
    return asked


@pytest.mark.parametrize("name", ASK_ONE)
def test_the_model_that_is_never_in_time_is_left(name: str) -> None:
    late = [play(make_policy(name), default_half_life(name), seed)[-LAST:].count("slow") for seed in range(3)]
    assert sum(late) <= 0.12 * 3 * LAST, late
