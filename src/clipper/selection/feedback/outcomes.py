"""How queries ended for the versions that they asked: in time or not, and whether feedback tells of it.

Whether a version is in time is known of every query; how right it is only of those with feedback. Some applications
send feedback on answers and none on defaults, of which they know nothing to say. Were misses then to teach nothing, the
version that is right but never in time would look the best. Were each to teach, though feedback comes on one answer in
a hundred, lateness would weigh a hundred times what a wrong answer does. So misses teach as often as answers do: where
feedback comes on a share f of the answers, and of a version's misses on clearly fewer, what is missing of f is made up.
Until there are answers f is taken to be 1: a policy that asks nothing but what is never in time has to learn of that.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from clipper.selection.learning.arms import Arms
from clipper.selection.policies.policy import Choice

# Counts are halved at so many queries: what was long ago tells little of who is in time now.
WINDOW = 8192
# Feedback on so many standard deviations fewer misses than on answers is no chance.
CLEARLY = 3.0
# Misses that are made up for at once; others wait for the next time.
MAX_MADE_UP = 100
# Of how many queries the recent share is. A version that hangs is known to after some tens; one that is new, after ten.
RECENT = 20


class Version(msgspec.Struct, gc=False):
    """Of one version.

    Attributes:
        in_time, missed: queries that it answered by their deadline, or did not.
        told: misses with feedback.
        made_up: misses without, that have taught nevertheless.
        recent: share of the last queries that it was in time for.
        seen: queries that ``recent`` is of, up to ``RECENT``.
        choice, arms, features: of the last miss.
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

    def see(self, *, was_in_time: bool) -> None:
        if self.seen < RECENT:
            self.seen += 1
        self.recent += ((1.0 if was_in_time else 0.0) - self.recent) / self.seen


class MadeUp(msgspec.Struct, frozen=True):
    """Misses without feedback that are to teach now: as many of ``name``, as ``choice`` had it asked, at that loss.

    ``features`` are those of the last one.
    """

    name: str
    choice: Choice
    arms: Arms
    times: int
    loss: float
    features: bytes | None = None


class Outcomes:
    """Counts them for one application of one worker, which gets the feedback on its queries."""

    def __init__(self) -> None:
        self._versions: dict[str, Version] = {}
        self._counted = 0
        # Of answers that a version gave: how many, and with feedback.
        self._answered = 0.0
        self._told = 0.0
        # Of defaults, as far as labels tell.
        self._default_loss = 0.0
        self._defaults_scored = 0.0

    def came(self, key: str) -> None:
        """A version answered a query by its deadline."""
        version = self._version(key)
        version.in_time += 1
        # Most always are: there is nothing to work out.
        if version.recent < 1.0 or version.seen < RECENT:
            version.see(was_in_time=True)

    def missed(self, name: str, choice: Choice, arms: Arms, features: bytes | None = None) -> None:
        """It did not."""
        version = self._version(arms.key(name))
        version.missed += 1
        version.choice, version.arms, version.features = choice, arms, features
        version.see(was_in_time=False)

    def answered(self) -> None:
        """A query has got its models' answer."""
        self._answered += 1

    def told_of_answer(self) -> None:
        """Feedback on an answer came."""
        self._told += 1

    def told_of_miss(self, key: str) -> None:
        """Feedback came on a query that got no answer of this version."""
        self._version(key).told += 1

    def told_of_default(self, loss: float) -> None:
        """A label told what the user would have lost, or did, by the application's default."""
        self._defaults_scored += 1
        self._default_loss += loss

    def missed_share(self, key: str) -> float:
        """Of the queries that asked a version, the share that it did not answer in time; 0 if none did."""
        version = self._versions.get(key)
        if version is None or not version.in_time + version.missed:
            return 0.0
        return version.missed / (version.in_time + version.missed)

    def recent_share(self, key: str) -> float:
        """Of the last queries that asked it, the share that it was in time for; 1 if none did."""
        version = self._versions.get(key)
        return 1.0 if version is None else version.recent

    def make_up(self) -> list[MadeUp]:
        """What misses without feedback are to teach now; from here on they count as having taught."""
        share = min((self._told + 1) / (self._answered + 1), 1.0)
        loss = self._default_loss / self._defaults_scored if self._defaults_scored else 1.0
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
        """They could not be learned from after all."""
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
        self._answered /= 2
        self._told /= 2
        self._default_loss /= 2
        self._defaults_scored /= 2
        for version in self._versions.values():
            version.in_time /= 2
            version.missed /= 2
            version.told /= 2
            version.made_up /= 2
        # Of versions that are asked no more nothing is left in the end.
        self._versions = {key: each for key, each in self._versions.items() if each.in_time + each.missed >= 0.5}


def mixed(losses: Mapping[str, float], shares: Mapping[str, float], no_answer_loss: float) -> dict[str, float]:
    """What the user would get: of each model, the loss of its output when it is in time, else that of what stands in.

    Args:
        losses: of outputs, by model.
        shares: of the queries that asked it, by model, the share that it was not in time for.
    """
    return {model: loss + shares.get(model, 0.0) * (no_answer_loss - loss) for model, loss in losses.items()}
