"""Outcomes of queries for the versions that they asked: in time or not, and whether there is feedback on it.

Every query shows whether a version is in time; only those with feedback show how right it is. Some applications send
feedback on answers and none on defaults, about which they have nothing to say. If misses taught nothing, a version that
is right but never in time would look the best. If each miss taught, although one in a hundred answers has feedback, a
miss would count a hundred times as much as a wrong answer. So misses teach as often as answers do: if a share f of the
answers has feedback, and clearly fewer of a version's misses, the difference is made up. Until there are answers f
counts as 1: a policy that only asks versions that are never in time must learn that.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from clipper.learning.mathematics.arms import Arms
from clipper.learning.policies.policy import Choice
from clipper.worker.selection.feedback.promises import Promises

# Counts are halved after this many queries: old counts say little about which models are in time now.
WINDOW = 8192
# If misses with feedback are this many standard deviations fewer than answers with feedback, that is no chance.
CLEARLY = 3.0
# The most misses that are made up for at once; others wait for the next time.
MAX_MADE_UP = 100
# The queries in the recent share. A hanging version is found after some tens of queries, a new version after ten.
RECENT = 20


class Version(msgspec.Struct, gc=False):
    """The counts of a version.

    Attributes:
        in_time, missed: queries that it answered by their deadline, or did not.
        told: misses with feedback.
        made_up: misses without feedback that have been learned from.
        recent: the share of the recent queries that it was in time for.
        seen: the number of queries in ``recent``, up to ``RECENT``.
        choice, arms, features: the data of the latest miss.
        promises: how reliable its queue's chances are; None while it was in time, and sure to be, for all queries.
    """

    in_time: float = 0.0
    missed: float = 0.0
    told: float = 0.0
    made_up: float = 0.0
    recent: float = 1.0
    seen: int = 1
    choice: Choice | None = None
    arms: Arms | None = None
    features: bytes | None = None
    promises: Promises | None = None

    def see(self, *, was_in_time: bool, chance: float | None = None) -> None:
        if self.seen < RECENT:
            self.seen += 1
        self.recent += ((1.0 if was_in_time else 0.0) - self.recent) / self.seen
        if chance is None:
            return
        if self.promises is None and not (was_in_time and chance >= 1.0):
            self.promises = Promises()
        if self.promises is not None:
            self.promises.ended(chance, was_in_time=was_in_time)


class MadeUp(msgspec.Struct, frozen=True):
    """Misses without feedback to learn from now: their number, the version's name and choice, and the loss.

    ``features`` are those of the latest one.
    """

    name: str
    choice: Choice
    arms: Arms
    times: int
    loss: float
    features: bytes | None = None


class Outcomes:
    """Counts an application's outcomes in a worker, which gets the feedback on its own queries.

    Attributes:
        answers: queries that got their models' answer; older ones count less. The query path increments it.
        have_misses: whether there was a miss; without a miss there is nothing to make up.
    """

    def __init__(self) -> None:
        self.have_misses = False
        self._versions: dict[str, Version] = {}
        self._counted = 0
        self.answers = 0.0
        # The answers with feedback.
        self._told = 0.0
        # The losses of the default that labels have shown.
        self._default_loss = 0.0
        self._defaults_scored = 0.0

    @property
    def default_loss(self) -> float:
        """The mean loss of the default, as far as labels show it; else 1."""
        return self._default_loss / self._defaults_scored if self._defaults_scored else 1.0

    def believed(self, key: str, chance: float) -> float:
        """Return how likely a version is to be in time, by its queue's chance, corrected by earlier outcomes."""
        version = self._versions.get(key)
        return chance if version is None or version.promises is None else version.promises.believed(chance)

    def regained(self, key: str) -> None:
        """Note that a version which was only tried has answered in time: trust its queue's chances again."""
        version = self._versions.get(key)
        if version is not None:
            version.recent, version.seen, version.promises = 1.0, 1, None

    def came(self, key: str, chance: float | None = None) -> None:
        """Count a version's answer by the deadline. ``chance``: of its queue, if the version was chosen by that."""
        version = self._versions.get(key)
        if version is None or self._counted + 1 >= WINDOW:
            version = self._version(key)
        else:
            self._counted += 1
        version.in_time += 1
        # Most versions are always in time, and surely, so that nothing changes.
        is_sure = chance is None or chance >= 1.0
        if version.recent < 1.0 or version.seen < RECENT or version.promises is not None or not is_sure:
            version.see(was_in_time=True, chance=chance)

    def missed(
        self, name: str, choice: Choice, arms: Arms, features: bytes | None = None, chance: float | None = None
    ) -> None:
        self.have_misses = True
        version = self._version(arms.key(name))
        version.missed += 1
        version.choice, version.arms, version.features = choice, arms, features
        version.see(was_in_time=False, chance=chance)

    def excused(self, key: str) -> None:
        """Count a miss that only shows whether to wait for the version now, and from which nothing is learned."""
        self._version(key).see(was_in_time=False)

    def told_of_answer(self) -> None:
        self._told += 1

    def told_of_miss(self, key: str) -> None:
        """Count feedback on a query that this version did not answer."""
        self._version(key).told += 1

    def told_of_default(self, loss: float) -> None:
        """Learn from a label what the application's default lost, or would have lost."""
        self._defaults_scored += 1
        self._default_loss += loss

    def missed_share(self, key: str) -> float:
        """Return the share of its queries that a version did not answer in time; 0 if there were none."""
        version = self._versions.get(key)
        if version is None or not version.in_time + version.missed:
            return 0.0
        return version.missed / (version.in_time + version.missed)

    def knows(self, key: str) -> bool:
        """Whether a version was asked lately."""
        return key in self._versions

    def recent_share(self, key: str) -> float:
        """Return the share of its recent queries that a version was in time for; 1 if there were none."""
        version = self._versions.get(key)
        return 1.0 if version is None else version.recent

    def make_up(self) -> list[MadeUp]:
        """Return the misses without feedback to learn from now; from here on they count as learned from."""
        share = min((self._told + 1) / (self.answers + 1), 1.0)
        loss = self.default_loss
        made_up = []
        for key, version in self._versions.items():
            expected = share * version.missed
            is_silent = expected - version.told >= CLEARLY * math.sqrt(max(expected, 1.0))
            times = min(int(expected - version.told - version.made_up), MAX_MADE_UP)
            if is_silent and times > 0 and version.choice is not None and version.arms is not None:
                version.made_up += times
                name = next(model for model in version.choice.models if version.arms.key(model) == key)
                made_up.append(MadeUp(name, version.choice, version.arms, times, loss, version.features))
        return made_up

    def take_back(self, made_up: Sequence[MadeUp]) -> None:
        """Do not count misses that could not be learned from."""
        for each in made_up:
            self._version(each.arms.key(each.name)).made_up -= each.times

    def _version(self, key: str) -> Version:
        self._counted += 1
        if self._counted >= WINDOW:
            self._fade()
        version = self._versions.get(key)
        if version is None:
            version = self._versions[key] = Version()
        return version

    def _fade(self) -> None:
        self._counted //= 2
        self.answers /= 2
        self._told /= 2
        self._default_loss /= 2
        self._defaults_scored /= 2
        for version in self._versions.values():
            version.in_time /= 2
            version.missed /= 2
            version.told /= 2
            version.made_up /= 2
        # In the end, nothing is left of versions that are no longer asked.
        self._versions = {key: each for key, each in self._versions.items() if each.in_time + each.missed >= 0.5}


def mixed(losses: Mapping[str, float], shares: Mapping[str, float], no_answer_loss: float) -> dict[str, float]:
    """Return the user's expected loss for each model: its output's loss if it is in time, else that of the substitute.

    Args:
        shares: share of its queries that a model was not in time for, by model.
        no_answer_loss: loss of what the user gets instead.
    """
    return {model: loss + shares.get(model, 0.0) * (no_answer_loss - loss) for model, loss in losses.items()}
