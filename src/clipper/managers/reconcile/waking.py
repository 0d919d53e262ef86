"""Decides which of the versions that are asked while they are asleep wake now. The caller gives all times.

A few wake at a time, in the order in which they were asked: a hundred that start at once would all be ready as late as
the last of them, and would need their memory for loading together. One that takes long keeps no other waiting.
"""

from collections.abc import Collection, Iterable

from clipper.types import ModelId

# The processors of the machine are shared by this many of them for each.
WAKING_PER_CORE = 2
# A version that has not woken after this is not counted any more. Most that are forked take a tenth of it.
COUNTED_S = 2.0


class Wakings:
    """Those who wait to wake, and those who are waking. There are no more of them than versions that sleep."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._asked: dict[ModelId, None] = {}
        self._began_s: dict[ModelId, float] = {}

    def ask(self, ids: Iterable[ModelId]) -> None:
        """Queries have come to these."""
        self._asked.update(dict.fromkeys(ids))

    def next(self, asleep: Collection[ModelId], ready: Collection[ModelId], now_s: float) -> list[ModelId]:
        """Return those that are to wake now; they count as waking from then on.

        Args:
            asleep: those that are asleep. Those that are not, or are gone, need not wake.
            ready: those that have a replica in service.
        """
        self._asked = {id_: None for id_ in self._asked if id_ in asleep}
        self._began_s = {
            id_: began_s
            for id_, began_s in self._began_s.items()
            if id_ not in asleep and id_ not in ready and now_s < began_s + COUNTED_S
        }
        woken = list(self._asked)[: max(self._at_once - len(self._began_s), 0)]
        for id_ in woken:
            del self._asked[id_]
            self._began_s[id_] = now_s
        return woken

    @property
    def are_due(self) -> bool:
        """Whether somebody waits to wake."""
        return bool(self._asked)

    @property
    def waking(self) -> list[ModelId]:
        """Those that are waking."""
        return list(self._began_s)
