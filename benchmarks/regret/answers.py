"""Streams of what several models answer at once, for policies that ask all of them: how right each is, and together.

Models' mean losses over time are those of ``streams``; here it is said which of them err together, too.
"""

import numpy as np

from benchmarks.regret.simulation import Integers
from benchmarks.regret.streams import Floats

# A right answer, and a wrong one that several models may give.
RIGHT, USUAL_WRONG, LABELS = 0, 1, 10
# Two of the five networks of benchmarks/paper/networks.py err together as if each met the chance that all share on so
# many inputs (0.62 to 0.84, by pairs), and then give the same wrong label in 0.54 to 0.80 of the cases: here in 0.65.
COMMON_CHANCE = 0.8
COMMON_LABEL = 0.8

# So much less than any weight that it decides between equals only.
_TIE = 1e-9


def answers(means: Floats, random: np.random.Generator) -> Integers:
    """One answer a model, (games, models), of models with these mean losses, (games, models).

    An input's difficulty is a number in [0, 1] which a model errs on if it is below its mean loss. With
    ``COMMON_CHANCE`` a model meets the one that all share, else one of its own. So each errs as often as its mean loss
    says, and the better model seldom where the worse is right.
    """
    shared = random.random((len(means), 1))
    difficulty = np.where(random.random(means.shape) < COMMON_CHANCE, shared, random.random(means.shape))
    other = random.integers(USUAL_WRONG + 1, LABELS, means.shape)
    wrong = np.where(random.random(means.shape) < COMMON_LABEL, USUAL_WRONG, other)
    found: Integers = np.where(difficulty < means, wrong, RIGHT)
    return found


def vote(weights: Floats, given: Integers) -> Integers:
    """The label with most weight behind it, by game; of equals that of the model which comes first."""
    games, models = weights.shape
    first = weights + _TIE * 2.0 ** -np.arange(models)
    places = np.arange(games)[:, None] * LABELS + given
    behind = np.bincount(places.ravel(), first.ravel(), games * LABELS).reshape(games, LABELS)
    label: Integers = behind.argmax(axis=1)
    return label


def losses_of(given: Integers) -> Floats:
    """1 where it is wrong, else 0."""
    losses: Floats = (given != RIGHT).astype(float)
    return losses
