"""The sums that one state is: they are only ever added to, and yet what is old counts less.

**Forward decay** (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009). Instead of shrinking what is
there, an increment is made larger the later it comes: by ``2 ** (n / half_life)`` when the state has seen ``n``
observations. What is read is divided by the scale of now, so an increment counts half after ``half_life`` further
observations. So increments commute: workers and machines learn into one state by adding, in any order.

The scale would grow without end, so it starts anew at 1 with each **epoch** of 32 half-lives, and stays below 2^32.
A number's key names its epoch. What is two epochs old counts less than 2^-32 of what it did, and is stale.

Time is counted in observations: a state that gets no feedback forgets nothing. Several writers count from what each
has seen, so one that lags by ``m`` observations adds ``2 ** (-m / half_life)`` of what it should.

What forgetting costs: a state knows what at most ``half_life / ln 2`` observations tell (1,443 for the default of
1,000), so models whose losses differ by much less than ``sqrt(ln 2 / half_life)`` (0.03) stay hard to tell apart, and
a policy that explores goes on to: its regret grows in proportion to time, by that rate of error per observation,
where one that never forgets has a regret that grows with its root or logarithm. In exchange a change is followed
in about ``half_life`` observations however long the history before it was. A ``half_life`` of None never forgets.

A sum may be of arrays of one size, which its key names. It fades as a number does.

A policy may keep sums of several half-lives side by side: a number whose name ends in ``~N`` or ``~never`` fades by
that half-life, whatever the state's is (``fading``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.errors import InvalidArgument
from clipper.selection.learning.parameters import check_number
from clipper.selection.learning.tally import Amount, Increments
from clipper.selection.learning.totals import OBSERVATIONS, ArrayParts, Arrays, Part, Totals

DEFAULT_HALF_LIFE = 1000

# A double keeps 53 bits. With scales up to 2^32, sums of a whole epoch still keep 20 bits of its first increments.
EPOCH_HALF_LIVES = 32

# How often feedback came. The one number that is not decayed: it is the clock.
CLOCK = OBSERVATIONS

# In an epoch's name, the half-life of a state that never forgets.
_NEVER = "never"
# A name that says by what half-life its number fades.
_FADING = re.compile(rf".*~({_NEVER}|[1-9][0-9]{{0,8}})")
_EPOCH = re.compile(rf"({_NEVER}|[1-9][0-9]*)@([0-9]+)")


@dataclass(frozen=True, slots=True)
class Epoch:
    """From which observation on increments are scaled, and by what half-life.

    It names its half-life, so numbers that were learned under another one keep their meaning, and go on to fade by it.
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
        """How large an increment of 1 is made at ``clock``."""
        if self.half_life is None:
            return 1.0
        return float(2.0 ** self._age(clock))

    def fade(self, clock: float) -> float:
        """How much of its sums counts at ``clock``."""
        if self.half_life is None:
            return 1.0
        return float(2.0 ** -self._age(clock))

    def is_stale(self, clock: float) -> bool:
        return self.half_life is not None and self._age(clock) >= 2 * EPOCH_HALF_LIVES

    def _age(self, clock: float) -> float:
        """In half-lives. A number may be seen before the clock that it was made by, so never below 0."""
        assert self.half_life is not None
        return max(clock - self.start, 0.0) / self.half_life

    def __str__(self) -> str:
        return f"{self.half_life or _NEVER}@{self.start}"

    @staticmethod
    @lru_cache(maxsize=1024)  # few half-lives are in use at a time, and contexts mostly in their first epochs
    def parse(text: str) -> "Epoch":
        match = _EPOCH.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no epoch")
        return Epoch(None if match[1] == _NEVER else int(match[1]), int(match[2]))


_NEVER_BEGAN = str(Epoch.at(0.0, None))


class Ledger:
    """One state's sums, as they lie in a store: by key, of which one is ``observations``, the clock, and the others
    are ``HALF_LIFE@START/MODEL/NAME``, of arrays ``HALF_LIFE@START/MODEL/NAME/SIZE``.

    Args:
        half_life: after how many observations an increment counts half, at least 1; None is never.
        sums: what was added up to now, under whatever half-lives.

    Raises:
        InvalidArgument: ``half_life`` is not one, or a key is not of that form.
    """

    def __init__(self, half_life: int | None = DEFAULT_HALF_LIFE, sums: Mapping[str, Amount] | None = None) -> None:
        check_half_life(half_life)
        self.half_life = half_life
        self.clock = 0.0
        # By epoch, and by ``MODEL/NAME``: keys are taken apart once an epoch and once a name, not once an increment.
        self._sums: dict[str, dict[str, float]] = {}
        self._arrays: dict[str, dict[str, NDArray[np.float64]]] = {}
        self._memo_of_arrays: dict[Any, Any] = {}
        self._totals: Totals | None = None
        self.add(sums or {})

    def __len__(self) -> int:
        """How many numbers it holds; arrays are not among them."""
        return sum(map(len, self._sums.values()))

    def entries(self, increments: Increments, observations: int = 1, ahead: int = 0) -> dict[str, Amount]:
        """What to add to this state, here and in the store, for what these observations taught.

        Args:
            increments: by model and name; the sum over ``observations``, which are few beside the half-life.
            ahead: how many observations came before these and are still to be added.
        """
        clock = self.clock + ahead
        now = Epoch.at(clock, self.half_life)
        scale, epoch = now.scale(clock), str(now)
        entries: dict[str, Amount] = {f"{epoch}//{OBSERVATIONS}": observations * scale, CLOCK: float(observations)}
        for (model, name), amount in increments.items():
            size = f"/{len(amount)}" if isinstance(amount, np.ndarray) else ""
            fades, half_life = _half_life_of(name)
            if fades and half_life is None:  # as much is for every policy: worked out beforehand
                entries[f"{_NEVER_BEGAN}/{model}/{name}"] = amount
            elif fades:
                own = Epoch.at(clock, half_life)
                entries[f"{own}/{model}/{name}{size}"] = amount * own.scale(clock)
            else:
                entries[f"{epoch}/{model}/{name}{size}"] = amount * scale
        return entries

    def add(self, entries: Mapping[str, Amount]) -> None:
        """Add what ``entries`` returned, here or elsewhere.

        Raises:
            InvalidArgument: a key is not of a state; those before it have been added.
        """
        for key, amount in entries.items():
            if isinstance(amount, np.ndarray):
                self._add_array(key, amount)
            elif key == CLOCK:
                self.clock += amount
            else:
                epoch, _, number = key.partition("/")
                sums = self._sums.get(epoch)
                if sums is None or number not in sums:
                    _check_key(key)
                    sums = self._sums.setdefault(epoch, {})
                sums[number] = sums.get(number, 0.0) + amount
        self._totals = None

    def _add_array(self, key: str, amount: NDArray[np.float64]) -> None:
        epoch, _, number = key.partition("/")
        known = self._arrays.get(epoch, {}).get(number)
        if known is None:
            _check_key(key, amount)
            self._arrays.setdefault(epoch, {})[number] = amount
        else:
            # A new one: who holds the old one can tell that it is old.
            self._arrays[epoch][number] = known + amount

    def totals(self) -> Totals:
        """The numbers as of now; the same object until something is added, so that its memo lasts as long."""
        if self._totals is None:
            self._totals = Totals(self._faded(), arrays=Arrays(self._parts(), self._memo_of_arrays))
        return self._totals

    def sums(self) -> dict[str, Amount]:
        """All sums by key. Another ``Ledger`` of these, of whatever half-life, has learned the same."""
        keyed: dict[str, Amount] = {CLOCK: self.clock}
        for epoch, sums in self._sums.items():
            keyed.update((f"{epoch}/{number}", amount) for number, amount in sums.items())
        for epoch, arrays in self._arrays.items():
            keyed.update((f"{epoch}/{number}", amount) for number, amount in arrays.items())
        return keyed

    def stale(self) -> list[str]:
        """Keys that count for nothing any more, and may be deleted in the store."""
        return [
            f"{epoch}/{number}"
            for epoch in self._stale_epochs()
            for number in (*self._sums.get(epoch, ()), *self._arrays.get(epoch, ()))
        ]

    def drop_stale(self) -> None:
        """Forget them here: a state holds two epochs, however long it lives."""
        for epoch in self._stale_epochs():
            self._sums.pop(epoch, None)
            self._arrays.pop(epoch, None)

    def encode(self) -> bytes:
        """JSON text of the sums."""
        return msgspec.json.encode(self.sums(), enc_hook=_to_list)

    @staticmethod
    def decode(text: bytes, half_life: int | None = DEFAULT_HALF_LIFE) -> "Ledger":
        """The inverse of ``encode``.

        Raises:
            InvalidArgument: the text is not a state.
        """
        try:
            sums = msgspec.json.decode(text, type=dict[str, float | list[float]])
            amounts = {key: np.array(each) if isinstance(each, list) else each for key, each in sums.items()}
            return Ledger(half_life, amounts)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"not a learned state: expected a JSON object of numbers: {error}") from error

    def _faded(self) -> dict[tuple[str, str], float]:
        numbers: dict[tuple[str, str], float] = {}
        for epoch, sums in self._sums.items():
            fade = Epoch.parse(epoch).fade(self.clock)
            for text, amount in sums.items():
                number = _parse_number(text)
                numbers[number] = numbers.get(number, 0.0) + amount * fade
        return numbers

    def _parts(self) -> ArrayParts:
        parts: dict[tuple[str, str, int], list[Part]] = {}
        for epoch, arrays in self._arrays.items():
            fade = Epoch.parse(epoch).fade(self.clock)
            for text, amounts in arrays.items():
                parts.setdefault((*_parse_number(text.rpartition("/")[0]), len(amounts)), []).append((amounts, fade))
        return parts

    def _stale_epochs(self) -> list[str]:
        return [epoch for epoch in {**self._sums, **self._arrays} if Epoch.parse(epoch).is_stale(self.clock)]


def fading(name: str, half_life: int | None) -> str:
    """The name of a number that fades by ``half_life``, whatever that of its state is; None is never."""
    return f"{name}~{half_life or _NEVER}"


# As many names as a policy may reasonably have.
@lru_cache(maxsize=1024)
def _half_life_of(name: str) -> tuple[bool, int | None]:
    """Whether a number fades by a half-life of its own, and by which."""
    match = _FADING.fullmatch(name)
    if match is None:
        return False, None
    return True, None if match[1] == _NEVER else int(match[1])


def check_half_life(half_life: int | None) -> None:
    """Raises:
    InvalidArgument: it is neither None nor a whole number from 1 on.
    """
    if half_life is None:
        return
    check_number("half_life", half_life, 1)
    if not isinstance(half_life, int):
        raise InvalidArgument(f"half_life is {half_life!r}: expected a whole number of observations, or none")


# As many models' numbers as a worker has in use at a time; others are taken apart anew.
@lru_cache(maxsize=16384)
def _parse_number(text: str) -> tuple[str, str]:
    model, name = text.split("/")
    return model, name


def _check_key(key: str, array: NDArray[np.float64] | None = None) -> None:
    epoch, _, number = key.partition("/")
    try:
        Epoch.parse(epoch)
        if array is not None:
            number, _, size = number.rpartition("/")
            if size != str(len(array)):
                raise ValueError(size)
        _parse_number(number)
    except ValueError:
        expected = "HALF_LIFE@START/MODEL/NAME" + ("" if array is None else f"/{len(array)}")
        raise InvalidArgument(f"{key!r} is not the key of a learned state: expected {expected}") from None


def _to_list(array: NDArray[np.float64]) -> list[float]:
    return list(map(float, array))
