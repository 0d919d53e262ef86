"""The sums of a state. They are only ever added to, and yet older observations count for less.

**Forward decay** (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009). Instead of shrinking the sums,
later increments are made larger: by ``2 ** (n / half_life)`` when the state has seen ``n`` observations. A sum is
divided by the present scale when it is read, so an increment counts half after ``half_life`` further observations. So
increments commute: workers and machines learn into one state by adding, in any order.

The scale would grow for ever, so it starts again at 1 with each **epoch** of 32 half-lives, and stays below 2^32. A
number's key names its epoch. A number that is two epochs old counts less than 2^-32 of what it did, and is stale.

Time is counted in observations: a state without feedback forgets nothing. Each writer counts the observations that it
has seen, so a writer that lags by ``m`` observations adds ``2 ** (-m / half_life)`` of what it should.

The price of forgetting: a state knows at most what ``half_life / ln 2`` observations tell (1,443 for the default of
1,000). So models whose losses differ by much less than ``sqrt(ln 2 / half_life)`` (0.03) stay hard to distinguish, and
a policy that explores keeps exploring: its regret grows in proportion to time, where without forgetting it would grow
with the root or the logarithm. In exchange a change is followed within about ``half_life`` observations, however long
the history before it. A ``half_life`` of None never forgets.

A sum may consist of arrays of one size, which its key names. It fades like a number.

A policy may keep sums with several half-lives side by side: a number whose name ends in ``~N`` or ``~never`` fades by
that half-life, whatever the state's is (``fading``).
"""

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import (
    OBSERVATIONS,
    Amount,
    ArrayParts,
    Arrays,
    Key,
    Keyed,
    Numbers,
    Part,
    Totals,
)

DEFAULT_HALF_LIFE = 1000

# A double has 53 bits. With scales up to 2^32, sums of a whole epoch still keep 20 bits of its first increments.
EPOCH_HALF_LIVES = 32

# Number of pieces of feedback. It is the clock, and the only number that does not fade.
CLOCK = OBSERVATIONS

# The text for no half-life in an epoch's name.
_NEVER = "never"
# A name that states the half-life by which its number fades.
_FADING = re.compile(rf".*~({_NEVER}|[1-9][0-9]{{0,8}})")
_EPOCH = re.compile(rf"({_NEVER}|[1-9][0-9]*)@([0-9]+)")


@dataclass(frozen=True, slots=True)
class Epoch:
    """The observation from which on increments are scaled, and the half-life.

    It names its half-life, so numbers that were learned under another half-life keep their meaning and fade by theirs.
    """

    half_life: int | None
    start: int

    @staticmethod
    def at(clock: float, half_life: int | None) -> "Epoch":
        if half_life is None:
            return Epoch(None, 0)
        length = EPOCH_HALF_LIVES * half_life
        return Epoch(half_life, int(clock // length) * length)

    def scale(self, clock: float) -> float:
        """Return the factor of an increment at ``clock``."""
        return float(2.0 ** self._age(clock))

    def fade(self, clock: float) -> float:
        """Return how much of the epoch's sums counts at ``clock``."""
        return float(2.0 ** -self._age(clock))

    def is_stale(self, clock: float) -> bool:
        return self._age(clock) >= 2 * EPOCH_HALF_LIVES

    def _age(self, clock: float) -> float:
        """Return the age in half-lives: 0 if nothing fades, and for a number that is seen before its clock."""
        return 0.0 if self.half_life is None else max(clock - self.start, 0.0) / self.half_life

    def __str__(self) -> str:
        return f"{self.half_life or _NEVER}@{self.start}"

    @staticmethod
    @lru_cache(maxsize=1024)  # few half-lives are in use at a time, and most contexts are in their first epochs
    def parse(text: str) -> "Epoch":
        match = _EPOCH.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no epoch")
        return Epoch(None if match[1] == _NEVER else int(match[1]), int(match[2]))


_NEVER_BEGAN = str(Epoch.at(0.0, None))
_SEEN: Key = ("", OBSERVATIONS)

# Enough for the keys that a worker uses at a time; others are parsed, or made, again. A key takes some 500 bytes.
MAX_KEYS = 16_384


class Ledger:
    """The sums of a state, as a store keeps them.

    Their keys are ``observations``, which is the clock, and ``HALF_LIFE@START/MODEL/NAME``, for arrays
    ``HALF_LIFE@START/MODEL/NAME/SIZE``.

    Args:
        half_life: number of observations after which an increment counts half, at least 1; None for never.
        sums: the sums so far, under any half-lives.

    Raises:
        InvalidArgument: ``half_life`` or a key is not valid.
    """

    def __init__(self, half_life: int | None = DEFAULT_HALF_LIFE, sums: Mapping[str, Amount] | None = None) -> None:
        check_half_life(half_life)
        self.half_life = half_life
        self.clock = 0.0
        # All sums but the clock, by key. A key is parsed when it is first added, and when it is read.
        self._sums: dict[str, float] = {}
        self._arrays: dict[str, NDArray[np.float64]] = {}
        self._epochs: set[str] = set()
        self._memo_of_arrays: dict[Any, Any] = {}
        self._totals: Totals | None = None
        self.add(sums or {})

    def __len__(self) -> int:
        """Return the count of numbers, without arrays."""
        return len(self._sums)

    def entries(self, increments: Keyed, observations: int = 1, ahead: int = 0) -> dict[str, Amount]:
        """Return the amounts to add to this state, here and in the store, for some observations.

        Args:
            increments: the sums over the observations, by model and name.
            observations: the number of observations, which is small beside the half-life.
            ahead: the number of earlier observations that are still to be added.
        """
        clock = self.clock + ahead
        now = Epoch.at(clock, self.half_life)
        scale, epoch = now.scale(clock), str(now)
        entries: dict[str, Amount] = {_TEXTS.of(epoch, _SEEN): observations * scale, CLOCK: float(observations)}
        for key, amount in increments.items():
            fades, half_life = _half_life_of(key[1])
            if fades and half_life is None:  # this is so for every policy's counts, and is computed in advance
                began, factor = _NEVER_BEGAN, 1.0
            elif fades:
                own = Epoch.at(clock, half_life)
                began, factor = str(own), own.scale(clock)
            else:
                began, factor = epoch, scale
            text = _TEXTS.of(began, key)
            entries[f"{text}/{len(amount)}" if isinstance(amount, np.ndarray) else text] = amount * factor
        return entries

    def add(self, entries: Mapping[str, Amount]) -> None:
        """Add what ``entries`` returned, here or elsewhere. Raises InvalidArgument at a key that is no state's."""
        sums = self._sums
        for key, amount in entries.items():
            if isinstance(amount, np.ndarray):
                self._add_array(key, amount)
            elif key in sums:
                sums[key] += amount
            elif key == CLOCK:
                self.clock += amount
            else:
                text, epoch, _ = _parse_key(key)
                self._epochs.add(epoch)
                sums[text] = amount
        self._totals = None

    def _add_array(self, key: str, amount: NDArray[np.float64]) -> None:
        known = self._arrays.get(key)
        if known is None:
            epoch = _parse_key_of_array(key, len(amount))[0]
            self._epochs.add(epoch)
            self._arrays[key] = amount
        else:
            # A new array, so that a holder of the old array can tell that it is old.
            self._arrays[key] = known + amount

    def totals(self) -> Totals:
        """Return the present numbers: the same object until something is added, so that its memo stays valid."""
        if self._totals is None:
            self._totals = Totals(self._faded(), arrays=Arrays(self._parts(), self._memo_of_arrays))
        return self._totals

    def sums(self) -> dict[str, Amount]:
        """Return all sums by key. A ``Ledger`` made of them, with any half-life, has learned the same."""
        return {CLOCK: self.clock, **self._sums, **self._arrays}

    def stale(self) -> list[str]:
        """Return the keys that no longer count and may be deleted in the store."""
        stale = self._stale_epochs()
        return [key for key in (*self._sums, *self._arrays) if key.partition("/")[0] in stale] if stale else []

    def has_stale(self) -> bool:
        """Return whether ``stale`` returns any."""
        # An epoch is stale in the second epoch after it: there are at least three then.
        return len(self._epochs) > 2 and bool(self._stale_epochs())

    def keys_of(self, prefix: str) -> list[str]:
        """Return the keys of all numbers whose names begin with ``prefix``."""
        return [key for key in self._sums if _parse_key(key)[2][1].startswith(prefix)]

    def drop(self, keys: Collection[str]) -> None:
        """Forget some sums here."""
        for key in keys:
            self._sums.pop(key, None)
            self._arrays.pop(key, None)
        self._totals = None

    def drop_stale(self) -> None:
        """Forget stale keys here: a state holds two epochs, however long it lives."""
        self.drop(self.stale())
        self._epochs -= self._stale_epochs()

    def _faded(self) -> Numbers:
        fades = {epoch: Epoch.parse(epoch).fade(self.clock) for epoch in self._epochs}
        numbers: Numbers = {}
        for key, amount in self._sums.items():
            _, epoch, number = _parse_key(key)
            numbers[number] = numbers.get(number, 0.0) + amount * fades[epoch]
        return numbers

    def _parts(self) -> ArrayParts:
        parts: dict[tuple[str, str, int], list[Part]] = {}
        for key, amounts in self._arrays.items():
            epoch, number = _parse_key_of_array(key, len(amounts))
            model, name = number
            parts.setdefault((model, name, len(amounts)), []).append((amounts, Epoch.parse(epoch).fade(self.clock)))
        return parts

    def _stale_epochs(self) -> set[str]:
        return {epoch for epoch in self._epochs if Epoch.parse(epoch).is_stale(self.clock)}


class _Texts:
    """The keys of numbers in a store, each made once: see ``_parse_key``."""

    def __init__(self) -> None:
        self._by_epoch: dict[str, dict[Key, str]] = {}
        self._count = 0

    def of(self, epoch: str, key: Key) -> str:
        """Return the text of a key, for an array without its size."""
        of_epoch = self._by_epoch.get(epoch)
        text = None if of_epoch is None else of_epoch.get(key)
        if text is None:
            if self._count >= MAX_KEYS:
                self.forget()
            model, name = key
            text = self._by_epoch.setdefault(epoch, {})[key] = _parse_key(f"{epoch}/{model}/{name}")[0]
            self._count += 1
        return text

    def forget(self) -> None:
        self._by_epoch.clear()
        self._count = 0


_TEXTS = _Texts()


def forget_keys() -> None:
    """Forget all keys that were parsed or made, when some of them may never come again, as those of a removed version.

    They are parsed again as they come: a few microseconds each.
    """
    _TEXTS.forget()
    _parse_key.cache_clear()
    _half_life_of.cache_clear()


def fading(name: str, half_life: int | None) -> str:
    """Return the name of a number that fades by ``half_life`` instead of its state's; None is never."""
    return f"{name}~{half_life or _NEVER}"


# More names than any policy is expected to have.
@lru_cache(maxsize=1024)
def _half_life_of(name: str) -> tuple[bool, int | None]:
    """Return whether a number has a half-life of its own, and that half-life."""
    match = _FADING.fullmatch(name)
    if match is None:
        return False, None
    return True, None if match[1] == _NEVER else int(match[1])


def check_half_life(half_life: int | None) -> None:
    """Check a half-life. Raises InvalidArgument if it is neither None nor a whole number above 0."""
    if half_life is None:
        return
    check_number("half_life", half_life, 1)
    if not isinstance(half_life, int):
        raise InvalidArgument(f"half_life is {half_life!r}: expected a whole number of observations, or none")


@lru_cache(maxsize=MAX_KEYS)
def _parse_key(key: str, expected: str = "HALF_LIFE@START/MODEL/NAME") -> tuple[str, str, Key]:
    """Return the text, as one object for all states so that look-ups are quick; the epoch's name; the number's key."""
    key = sys.intern(key)
    epoch, _, number = key.partition("/")
    try:
        Epoch.parse(epoch)
        model, name = number.split("/")
    except ValueError:
        raise InvalidArgument(f"{key!r} is not the key of a learned state: expected {expected}") from None
    return key, epoch, (model, name)


def _parse_key_of_array(key: str, size: int) -> tuple[str, Key]:
    number, _, stated = key.rpartition("/")
    expected = f"HALF_LIFE@START/MODEL/NAME/{size}"
    if stated != str(size):
        raise InvalidArgument(f"{key!r} is not the key of a learned state: expected {expected}")
    _, epoch, key_of_number = _parse_key(number, expected)
    return epoch, key_of_number
