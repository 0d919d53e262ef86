"""What one application has learned: its own state, and one for each of its contexts.

A bounded number of contexts is in memory, the rest in the store; a context is fetched when it is first asked for.
"""

import logging
from collections import OrderedDict

from clipper.errors import ClipperError
from clipper.selection.learning.ledger import Ledger
from clipper.selection.learning.tally import Increments
from clipper.selection.learning.totals import Totals
from clipper.selection.stores.store import EVERYONE, Store

log = logging.getLogger(__name__)

# Each takes about 2 KB with five models. The least recently asked goes first; it is fetched again when it comes back.
MAX_CONTEXTS = 10_000


class _State:
    """A context's ledger, and its totals with the application's mixed in, for as long as neither changes."""

    __slots__ = ("ledger", "mixed", "mixed_from")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.mixed: Totals | None = None
        self.mixed_from: tuple[Totals, Totals] | None = None


class Contexts:
    """Reads and adds to an application's states.

    Args:
        application: the application's id.
    """

    def __init__(self, application: str, store: Store, half_life: int | None, prior_weight: float) -> None:
        self._application = application
        self._store = store
        self._half_life = half_life
        self._prior_weight = prior_weight
        self._everyone = Ledger(half_life)
        self._states: OrderedDict[str, _State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def totals(self, context: str | None) -> Totals | None:
        """What is known for a context, None if it has to be loaded first; for None, what all have taught."""
        if context is None:
            return self._everyone.totals()
        state = self._states.get(context)
        if state is None:
            return None
        self._states.move_to_end(context)
        own, prior = state.ledger.totals(), self._everyone.totals()
        if state.mixed is None or state.mixed_from != (own, prior):
            state.mixed = own.with_prior(prior, self._prior_weight)
            state.mixed_from = own, prior
        return state.mixed

    def prior(self) -> Totals:
        """What a context without a state begins with."""
        return self._everyone.totals()

    async def load(self, context: str | None) -> None:
        """Read a state from the store, in place of the one in memory.

        A store that is down leaves what is there; a context that is not begins from the application's state, and is
        asked for again when it is next used.
        """
        try:
            sums = await self._store.load(self._application, EVERYONE if context is None else context)
            ledger = Ledger(self._half_life, sums)
        except ClipperError as error:
            log.warning("state of %s, context %s: %s", self._application, context, error)
            return
        ledger.drop_stale()
        if context is None:
            self._everyone = ledger
            return
        self._states[context] = _State(ledger)
        self._states.move_to_end(context)
        while len(self._states) > MAX_CONTEXTS:
            self._states.popitem(last=False)

    def entries(self, context: str | None, increments: Increments) -> dict[str, float]:
        """What to add in the store for one observation."""
        ledger = self._ledger(context)
        return (ledger or Ledger(self._half_life)).entries(increments)

    def add(self, context: str | None, entries: dict[str, float]) -> None:
        """Add in memory what the store has added. A context that is not in memory has it when it is next loaded."""
        ledger = self._ledger(context)
        if ledger is not None:
            ledger.add(entries)

    def holds(self, context: str) -> bool:
        """Whether a change of that state in the store has to be read."""
        return context == EVERYONE or context in self._states

    def _ledger(self, context: str | None) -> Ledger | None:
        if context is None:
            return self._everyone
        state = self._states.get(context)
        return None if state is None else state.ledger
