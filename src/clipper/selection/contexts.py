"""What one application has learned: its own state, and one for each of its contexts.

A bounded number of contexts is in memory, the rest in the store; a context is fetched when it is first asked for.

Memory follows the store in two ways that must not count the same observation twice: what this worker has committed is
added here once the store says that it is durable, and a state is read again when others have changed it. A reading
that overlaps a commit may or may not hold it. So states are read again only between commits (``reload``), and one that
was read for the first time at any other moment (``load``) is read again at the next such occasion.
"""

from collections import Counter, OrderedDict

import numpy as np

from clipper.selection.learning.arms import NO_ARMS, Arms
from clipper.selection.learning.ledger import Ledger
from clipper.selection.learning.tally import Amount, Increments
from clipper.selection.learning.totals import Totals
from clipper.selection.stores.store import EVERYONE, Store

# Each takes about 6 KB with five models, of ``adaptive`` 10 KB. The least recently asked goes first; it is fetched
# again when it comes back.
MAX_CONTEXTS = 10_000
# What their states hold in all; each number takes about 1 KB with what is worked out from it. One of ``stacking`` has
# some 9 with three models, 26 with five and 281 with sixteen: 10,000 such would take 2.3 GB.
MAX_NUMBERS = 120_000


class _State:
    """A context's ledger, and what is worked out from it for as long as nothing of it changes: its totals by links'
    names, and these with the application's mixed in.

    Attributes:
        counted: numbers of the ledger that are counted among those in memory.
    """

    __slots__ = ("_arms", "_seen", "_view", "counted", "ledger", "mixed", "mixed_from")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.counted = 0
        self._seen: Totals | None = None
        self._arms = NO_ARMS
        self._view = Totals()
        self.mixed: Totals | None = None
        self.mixed_from: tuple[Totals, Totals] | None = None

    def view(self, arms: Arms) -> Totals:
        seen = self.ledger.totals()
        if seen is not self._seen or arms is not self._arms:
            self._view = arms.view(seen)
            self._seen, self._arms = seen, arms
        return self._view


class Contexts:
    """Reads and adds to an application's states. ``None`` names the application's own, beside those of its contexts.

    Args:
        application: the application's id.

    Attributes:
        is_loaded: whether the application's own state has been read. Until then it looks as if nothing had been
            learned, which is good enough to choose by, and not to add to.
        arms: the versions that stand behind the links' names.
    """

    def __init__(self, application: str, store: Store, half_life: int | None, prior_weight: float) -> None:
        self._application = application
        self._store = store
        self._half_life = half_life
        self._prior_weight = prior_weight
        self.arms = NO_ARMS
        self._everyone = _State(Ledger(half_life))
        self._states: OrderedDict[str, _State] = OrderedDict()
        self._numbers = 0
        self._uncertain: set[str] = set()
        # Observations that the store has not answered yet, by state; and how many there have ever been.
        self._pending: Counter[str] = Counter()
        self._begun = 0
        self.is_loaded = False

    def __len__(self) -> int:
        return len(self._states)

    def follow(self, half_life: int | None, prior_weight: float) -> None:
        """Go on with other settings: what was learned is kept, what was worked out from it is not."""
        self._half_life = half_life
        self._prior_weight = prior_weight
        self._everyone = _State(Ledger(half_life, self._everyone.ledger.sums()))
        self._states.clear()
        self._numbers = 0

    def follow_arms(self, arms: Arms) -> None:
        """These versions stand behind the links' names now."""
        if arms != self.arms:
            self.arms = arms

    def totals(self, context: str | None) -> Totals | None:
        """What is known for a context, None if it has to be loaded first; for None, what all have taught.

        Numbers are by links' names, each with those of the version that it stands for.
        """
        if context is None:
            return self.prior()
        state = self._states.get(context)
        if state is None:
            return None
        self._states.move_to_end(context)
        own, prior = state.view(self.arms), self.prior()
        if state.mixed is None or state.mixed_from != (own, prior):
            state.mixed = own.with_prior(prior, self._prior_weight)
            state.mixed_from = own, prior
        return state.mixed

    def prior(self) -> Totals:
        """What a context without a state begins with."""
        return self._everyone.view(self.arms)

    # -- reading the store -------------------------------------------------------------------------------

    async def load(self, context: str | None) -> None:
        """Read a state that is not in memory.

        Raises:
            StoreUnavailable: memory is as it was, and it may be asked for again.
        """
        begun, is_certain = self._begun, not self._pending
        ledger = await self._read(context)
        if not self._holds(context):
            self._keep(context, ledger)
            if not is_certain or begun != self._begun:
                self._uncertain.add(_name(context))

    async def reload(self, name: str) -> None:
        """Read a state, by its name in the store, again if it is in memory. No commit may be under way.

        Raises:
            StoreUnavailable: memory is as it was.
        """
        context = None if name == EVERYONE else name
        if context is None or context in self._states:
            ledger = await self._read(context)
            self._keep(context, ledger)
            await self._forget_stale(name, ledger)
        self._uncertain.discard(name)

    def names(self) -> list[str]:
        """Of the states in memory, as the store names them."""
        return [EVERYONE, *self._states]

    def to_reload(self) -> list[str]:
        """Names of states that are to be read again whoever has changed them."""
        unread = [] if self.is_loaded else [EVERYONE]
        return unread + [name for name in self._uncertain if name != EVERYONE or self.is_loaded]

    async def _read(self, context: str | None) -> Ledger:
        return Ledger(self._half_life, await self._store.load(self._application, _name(context)))

    def _holds(self, context: str | None) -> bool:
        return self.is_loaded if context is None else context in self._states

    def _keep(self, context: str | None, ledger: Ledger) -> None:
        if context is None:
            self._everyone = _State(ledger)
            self.is_loaded = True
            return
        before = self._states.get(context)
        self._numbers -= before.counted if before is not None else 0
        state = self._states[context] = _State(ledger)
        self._count(state)

    def _count(self, state: _State) -> None:
        """Its ledger has changed: those that were not asked for longest make room, but for the last one."""
        self._numbers += len(state.ledger) - state.counted
        state.counted = len(state.ledger)
        while len(self._states) > MAX_CONTEXTS or (self._numbers > MAX_NUMBERS and len(self._states) > 1):
            _, gone = self._states.popitem(last=False)
            self._numbers -= gone.counted

    async def _forget_stale(self, name: str, ledger: Ledger) -> None:
        """A state holds the sums of two epochs, however long it lives: otherwise it would take ever longer to read."""
        stale = ledger.stale()
        if stale:
            ledger.drop_stale()
            await self._store.forget(self._application, name, stale)

    # -- learning ----------------------------------------------------------------------------------------

    def begin(self, context: str | None, increments: Increments) -> dict[str, Amount]:
        """Return what to add in the store for one observation. ``end`` has to follow, once the store has answered.

        ``increments`` are by version: see ``Arms.keyed``. Arrays are the application's alone: those of a context would
        take 17 KB a model, of 10,000 contexts.

        Observations under way count as made, so that of many at once each has its own place in time.
        """
        name = _name(context)
        ledger = self._ledger(context)
        if context is not None:
            increments = {key: amount for key, amount in increments.items() if not isinstance(amount, np.ndarray)}
        # One that was thrown out just now, by others that came in, is as good for telling the time.
        entries = (ledger or Ledger(self._half_life)).entries(increments, ahead=self._pending[name])
        self._pending[name] += 1
        self._begun += 1
        return entries

    def end(self, context: str | None, entries: dict[str, Amount], *, was_added: bool) -> None:
        """The store has answered. A context that is not in memory has it when it is next loaded."""
        name = _name(context)
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]
        ledger = self._ledger(context)
        if was_added and ledger is not None:
            ledger.add(entries)
            if context is not None:
                self._count(self._states[context])

    def _ledger(self, context: str | None) -> Ledger | None:
        if context is None:
            return self._everyone.ledger
        state = self._states.get(context)
        return None if state is None else state.ledger


def _name(context: str | None) -> str:
    return EVERYONE if context is None else context
