"""The learned state of an application: its own state, and a state for each of its contexts.

A bounded number of contexts is in memory, and all are in the store. A context is read when it is first queried.

Memory follows the store in two ways, which must not count an observation twice. This worker's commits are added to
memory once the store reports them durable; and a state is read again when another worker has changed it. A read that
overlaps a commit may or may not contain it. So states are read again only between commits (``reload``), and a state
that was first read at any other time (``load``) is soon read again.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from clipper.errors import InvalidArgument, StoreUnavailable
from clipper.learning.mathematics.arms import NO_ARMS, Arms
from clipper.learning.mathematics.ledger import Ledger, forget_keys
from clipper.learning.mathematics.totals import Amount, Keyed, Totals
from clipper.learning.mathematics.weighing import prefix_of, surplus
from clipper.learning.stores.gathered_reads import READ_AT_ONCE
from clipper.learning.stores.store import EVERYONE, Store

# A context takes about 5 KB with two models and 8 KB with five (with ``adaptive`` 8 and 13 KB), and 1.6 KB if it has
# learned nothing. The least recently used context is evicted, and read again when it is needed.
MAX_CONTEXTS = 10_000
# Numbers in all states together; each takes about 0.2 KB, so they take up to 24 MB. A state of ``stacking`` has some 9
# numbers with three models, 26 with five and 281 with sixteen: 10,000 of the largest would take 0.5 GB.
MAX_NUMBERS = 120_000


class _State:
    """A context's ledger, and its totals by the links' names, which are cached while it does not change. ``counted``:
    how many numbers of the ledger count towards ``MAX_NUMBERS``.
    """

    __slots__ = ("_arms", "_seen", "_view", "counted", "ledger")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.counted = 0
        self._seen: Totals | None = None
        self._arms = NO_ARMS
        self._view = Totals()

    def view(self, arms: Arms) -> Totals:
        seen = self.ledger.totals()
        if seen is not self._seen or arms is not self._arms:
            self._view = arms.view(seen)
            self._seen, self._arms = seen, arms
        return self._view


class Contexts:
    """Reads an application's states and adds to them. The context ``None`` is the application's own state.

    Args:
        application: the application's id.

    Attributes:
        is_loaded: whether the application's own state has been read. Until then it looks as if nothing was learned,
            which is good enough for selections, but not for additions.
        arms: the versions behind the links' names, by what the application's own state says of their contents.
    """

    def __init__(self, application: str, store: Store, half_life: int | None, prior_weight: float) -> None:
        self._application = application
        self._store = store
        self._half_life = half_life
        self._prior_weight = prior_weight
        self.arms = self._told_arms = NO_ARMS
        # Marks that the next observation adds: see ``Arms.takes``.
        self._to_take: Keyed = {}
        self._everyone = _State(Ledger(half_life))
        self._states: OrderedDict[str, _State] = OrderedDict()
        # Contexts' own totals, and the same mixed with these of the application. A mix with its earlier totals is never
        # asked for again, and would keep those in memory: a context would take twice as much.
        self._mixed: dict[str, tuple[Totals, Totals]] = {}
        self._mixed_with = Totals()
        self._numbers = 0
        self._uncertain: set[str] = set()
        # Number of observations in each state that the store has not answered yet.
        self._pending: Counter[str] = Counter()
        # The number of reads of each state in progress, and the states of which a read overlaps an observation.
        self._being_read: Counter[str] = Counter()
        self._overlapped: set[str] = set()
        self.is_loaded = False

    def __len__(self) -> int:
        return len(self._states)

    def follow(self, half_life: int | None, prior_weight: float) -> None:
        """Use other settings: keep the sums, and drop the values derived from them."""
        self._half_life = half_life
        self._prior_weight = prior_weight
        self._everyone = _State(Ledger(half_life, self._everyone.ledger.sums()))
        self._states.clear()
        self._numbers = 0

    def follow_arms(self, arms: Arms) -> None:
        """Set the versions behind the links' names."""
        if arms != self._told_arms:
            if arms.lineup != self._told_arms.lineup:
                forget_keys()  # a server that gets new versions for months would fill up with those of earlier ones
            if arms.lineup != self.arms.lineup and self.is_loaded:
                self._uncertain.add(EVERYONE)  # sums of an earlier lineup may exceed the bound by now
            self._told_arms = arms
            self._follow_owners()

    def _follow_owners(self) -> None:
        """Find out which contents own the numbers that earlier Clippers keep under versions' names."""
        numbers = self._everyone.ledger.totals().numbers
        arms = self._told_arms.beside(numbers)
        if arms != self.arms:
            self.arms = arms
        self._to_take = arms.takes(numbers)

    def totals(self, context: str | None) -> Totals | None:
        """Return the totals of a context, or None if it must be loaded first. The context None is the application.

        Numbers are by the links' names, each for the version that it stands for.
        """
        if context is None:
            return self.prior()
        state = self._states.get(context)
        if state is None:
            return None
        self._states.move_to_end(context)
        own, prior = state.view(self.arms), self.prior()
        if prior is not self._mixed_with:
            self._mixed_with = prior
            self._mixed.clear()
        known = self._mixed.get(context)
        if known is None or known[0] is not own:
            known = self._mixed[context] = own, own.with_prior(prior, self._prior_weight)
        return known[1]

    def prior(self) -> Totals:
        """Return the totals that a context without a state begins with."""
        return self._everyone.view(self.arms)

    # -- reading the store -------------------------------------------------------------------------------

    async def load(self, context: str | None) -> None:
        """Read a state that is not in memory. Raises StoreUnavailable; then memory has not changed."""
        with self._reading([_name(context)]):
            self._take_in(context, self._ledger_of(await self._store.load(self._application, _name(context))))

    async def load_many(self, contexts: Sequence[str]) -> None:
        """Read the contexts that are not in memory. A context that cannot be read is left out.

        Raises StoreUnavailable; then the others were not read.
        """
        for start in range(0, len(contexts), READ_AT_ONCE):
            missing = self.missing(contexts[start : start + READ_AT_ONCE])
            with self._reading(missing):
                for context, found in zip(missing, await self._store.load_many(self._application, missing)):
                    with suppress(StoreUnavailable):
                        self._take_in(context, self._ledger_of(found))

    def missing(self, contexts: Iterable[str | None]) -> list[str]:
        """Return the contexts that are not in memory, each once."""
        return [each for each in dict.fromkeys(contexts) if each is not None and each not in self._states]

    @contextmanager
    def _reading(self, names: Sequence[str]) -> Iterator[None]:
        """Note which states a commit overlaps while they are read."""
        for name in names:
            self._being_read[name] += 1
            if name in self._pending:
                self._overlapped.add(name)
        try:
            yield
        finally:
            for name in names:
                self._being_read[name] -= 1
                if not self._being_read[name]:
                    del self._being_read[name]
                    self._overlapped.discard(name)

    def _take_in(self, context: str | None, ledger: Ledger) -> None:
        """Hold a state that was read at any time."""
        if self.is_loaded if context is None else context in self._states:
            return
        self._keep(context, ledger)
        if _name(context) in self._overlapped:
            self._uncertain.add(_name(context))

    async def reload(self, names: Iterable[str]) -> None:
        """Read states again, by their names in the store, if they are in memory. No commit may be in progress.

        A state that cannot be read stays unchanged, and among ``to_reload``. Raises StoreUnavailable if none can be.
        """
        held = self.held(names)
        self._uncertain.update(held)
        for name, found in zip(held, await self._store.load_many(self._application, held)):
            try:
                ledger = self._ledger_of(found)
            except StoreUnavailable:
                continue
            self._keep(None if name == EVERYONE else name, ledger)
            # A state keeps the sums of two epochs and of a few lineups, so that reading it does not take ever longer.
            outdated = surplus(ledger.totals().numbers, self.arms.lineup) if name == EVERYONE else ()
            surpluses = [key for lineup in outdated for key in ledger.keys_of(prefix_of(lineup))]
            if stale := ledger.stale() + surpluses:
                ledger.drop(surpluses)
                ledger.drop_stale()
                await self._store.forget(self._application, name, stale)
            self._uncertain.discard(name)

    def names(self) -> list[str]:
        """Return the names in the store of all states in memory."""
        return [EVERYONE, *self._states]

    def held(self, names: Iterable[str]) -> list[str]:
        """Return the names whose states are in memory."""
        return [name for name in names if name == EVERYONE or name in self._states]

    @property
    def has_to_reload(self) -> bool:
        """Whether there may be any ``to_reload``. It is asked four times a second of a thousand applications."""
        return not self.is_loaded or bool(self._uncertain)

    def to_reload(self) -> list[str]:
        """Return the names of states that must be read again even without a change."""
        unread = [] if self.is_loaded else [EVERYONE]
        self._uncertain = set(self.held(self._uncertain))
        return unread + [name for name in self._uncertain if name != EVERYONE or self.is_loaded]

    def _ledger_of(self, found: dict[str, Amount] | StoreUnavailable) -> Ledger:
        """Return a state's ledger. Raises StoreUnavailable if it cannot be read, or was not written by Clipper."""
        if isinstance(found, StoreUnavailable):
            raise found
        try:
            return Ledger(self._half_life, found)
        except InvalidArgument as error:
            raise StoreUnavailable(f"the selection store holds something else in place of a state: {error}") from error

    def _keep(self, context: str | None, ledger: Ledger) -> None:
        if context is None:
            self._everyone = _State(ledger)
            self.is_loaded = True
            self._follow_owners()
            return
        before = self._states.get(context)
        self._numbers -= before.counted if before is not None else 0
        state = self._states[context] = _State(ledger)
        self._count(state)

    def _count(self, state: _State) -> None:
        """Count a changed ledger, and evict the least recently used states over the bound, but never the last one."""
        self._numbers += len(state.ledger) - state.counted
        state.counted = len(state.ledger)
        while len(self._states) > MAX_CONTEXTS or (self._numbers > MAX_NUMBERS and len(self._states) > 1):
            name, gone = self._states.popitem(last=False)
            self._mixed.pop(name, None)
            self._numbers -= gone.counted

    # -- learning ----------------------------------------------------------------------------------------

    def begin(self, context: str | None, increments: Keyed) -> dict[str, Amount]:
        """Return the additions to the store for an observation. Call ``end`` once the store has answered.

        Observations in progress count as made, so that each of many at once has its own place in time.

        Args:
            increments: by version: see ``Arms.keyed``. Only the application's own state keeps arrays: in a context they
                would take 17 KB for each model, in up to 10,000 contexts.
        """
        name = _name(context)
        ledger = self._ledger(context)
        if context is not None:
            increments = {key: amount for key, amount in increments.items() if not isinstance(amount, np.ndarray)}
        elif self._to_take:
            increments, self._to_take = {**increments, **self._to_take}, {}
        # If the state was just evicted, an empty ledger gives the same time.
        entries = (ledger or Ledger(self._half_life)).entries(increments, ahead=self._pending[name])
        self._pending[name] += 1
        if name in self._being_read:
            self._overlapped.add(name)
        return entries

    def end(self, context: str | None, entries: dict[str, Amount], *, was_added: bool) -> None:
        """Take the store's answer. A context that is not in memory has the observation when it is next loaded."""
        name = _name(context)
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]
        ledger = self._ledger(context)
        if not was_added and context is None:
            self._follow_owners()  # the marks may have been among these
        if was_added and ledger is not None:
            ledger.add(entries)
            if context is not None:
                self._count(self._states[context])
            if ledger.has_stale():
                self._uncertain.add(name)

    def doubt(self, contexts: Iterable[str | None]) -> None:
        """Let states be read again: the store may have lost additions, or have additions that it did not confirm."""
        self._uncertain.update(self.held(map(_name, contexts)))

    def _ledger(self, context: str | None) -> Ledger | None:
        if context is None:
            return self._everyone.ledger
        state = self._states.get(context)
        return None if state is None else state.ledger


def _name(context: str | None) -> str:
    return EVERYONE if context is None else context
