"""Differences between snapshots, so that the cost of a change does not depend on how much else there is.

A difference leads from its *base*, the generation of the snapshot that a worker has in force, to a newer snapshot. It
has every part that has changed since the base, also if it has changed back. So it can be applied to each snapshot from
the base on, and a message that is lost, or comes twice or late, does no harm: the next one leads to the newest
snapshot. A worker whose snapshot is older than the base, or of another epoch, needs the whole snapshot.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from clipper.control.snapshot import ApplicationSnapshot, KeySnapshot, ModelSnapshot, Peer, Snapshot

# The lowest bits of a generation count changes. The bits above hold its supervisor's epoch.
EPOCH_BITS = 32
# The kinds of a snapshot's parts, each of which has a name.
KINDS = ("applications", "models", "keys")
# Names of removed parts that differences still mention: some hundred bytes each. A worker whose base is from before the
# oldest of them gets the whole snapshot.
MAX_GONE = 10_000


class Difference(Struct, frozen=True):
    """The way from the snapshot of generation ``base``, or any later one, to the snapshot of ``generation``.

    Attributes:
        applications, models, keys: the parts that are new or may have changed since the base.
        gone_applications, gone_models, gone_keys: the names of the parts that are gone.
        peers: None if they have not changed.
    """

    base: int
    generation: int
    applications: tuple[ApplicationSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    keys: tuple[KeySnapshot, ...] = ()
    gone_applications: tuple[str, ...] = ()
    gone_models: tuple[str, ...] = ()
    gone_keys: tuple[str, ...] = ()
    peers: tuple[Peer, ...] | None = None
    needs_key: bool = False
    workers: int = 1


class _Part(Protocol):
    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=_Part)


class Holding:
    """A snapshot in parts, which differences change in place.

    Attributes:
        generation: the snapshot's generation; 0 before the first snapshot.
        applications, models, keys: its parts by name.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.applications: dict[str, ApplicationSnapshot] = {}
        self.models: dict[str, ModelSnapshot] = {}
        self.keys: dict[str, KeySnapshot] = {}
        self.peers: tuple[Peer, ...] = ()
        self.needs_key = False
        self.workers = 1
        # By a model's name, the applications that link it; a dict keeps them in order.
        self._linking: dict[str, dict[str, None]] = {}

    def linking(self, model: str) -> Collection[str]:
        return self._linking.get(model, {})

    def takes(self, difference: Difference) -> bool:
        """Whether ``follow`` leads to the difference's snapshot: this one is neither older than its base nor newer."""
        return difference.base <= self.generation <= difference.generation

    def difference_to(self, snapshot: Snapshot) -> Difference:
        """Return the difference from this to a whole snapshot. It costs a look at each part of the snapshot."""
        parts: dict[str, Any] = {"needs_key": snapshot.needs_key, "workers": snapshot.workers}
        for kind in KINDS:
            parts[kind], parts[f"gone_{kind}"] = _changes(getattr(self, kind), getattr(snapshot, kind))
        if snapshot.peers != self.peers:
            parts["peers"] = snapshot.peers
        return Difference(self.generation, snapshot.generation, **parts)

    def follow(self, difference: Difference) -> None:
        """Become the difference's snapshot. ``takes`` must be true."""
        for name in difference.gone_applications:
            self._unlink(self.applications.pop(name, None))
        for application in difference.applications:
            self._unlink(self.applications.get(application.name))
            self.applications[application.name] = application
            for link in application.links:
                self._linking.setdefault(link.model, {})[application.name] = None
        _replace(self.models, difference.models, difference.gone_models)
        _replace(self.keys, difference.keys, difference.gone_keys)
        if difference.peers is not None:
            self.peers = difference.peers
        self.generation, self.needs_key = difference.generation, difference.needs_key
        self.workers = difference.workers

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.generation,
            tuple(self.applications.values()),
            tuple(self.models.values()),
            self.peers,
            tuple(self.keys.values()),
            self.needs_key,
            self.workers,
        )

    def _unlink(self, application: ApplicationSnapshot | None) -> None:
        if application is None:
            return
        for model in {link.model for link in application.links}:
            self._linking[model].pop(application.name)
            if not self._linking[model]:
                del self._linking[model]


class Changes:
    """Remembers the generation in which each part of the snapshot changed last, and makes differences from that."""

    def __init__(self, max_gone: int = MAX_GONE) -> None:
        """Bound the remembered names of removed parts by ``max_gone``."""
        self._max_gone = max_gone
        self._held = Holding()
        # By kind and name, the generation of the last change; the latest is the last.
        self._changed: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._gone: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._peers_changed = 0
        # Changes up to this generation have been forgotten.
        self._floor = 0

    def follow(self, snapshot: Snapshot) -> None:
        """Take over a newer snapshot of ours.

        In another epoch, or before the first snapshot, there is no base for a difference: a generation of the epoch
        before may be another supervisor's.
        """
        if snapshot.generation >> EPOCH_BITS != self._held.generation >> EPOCH_BITS or not self._held.generation:
            self._changed.clear()
            self._gone.clear()
            self._floor = self._peers_changed = snapshot.generation
            self._held = Holding()
            self._held.follow(self._held.difference_to(snapshot))
            return
        difference = self._held.difference_to(snapshot)
        self._held.follow(difference)
        now = snapshot.generation
        if difference.peers is not None:
            self._peers_changed = now
        for kind in KINDS:
            gone: tuple[str, ...] = getattr(difference, f"gone_{kind}")
            for name in [*(part.name for part in getattr(difference, kind)), *gone]:
                self._changed[kind, name] = now
                self._changed.move_to_end((kind, name))
                self._gone.pop((kind, name), None)
            self._gone.update(((kind, name), now) for name in gone)
        while len(self._gone) > self._max_gone:
            key, generation = self._gone.popitem(last=False)
            del self._changed[key]
            self._floor = max(self._floor, generation)

    def since(self, base: int) -> Difference | None:
        """Return the difference from ``base`` to the newest snapshot; None if the whole snapshot is needed.

        ``base`` is a generation that a worker has reported in reply to a snapshot or difference of ours.
        """
        held = self._held
        if not self._floor <= base <= held.generation:
            return None
        parts: defaultdict[str, list[Any]] = defaultdict(list)
        for (kind, name), generation in reversed(self._changed.items()):
            if generation <= base:
                break
            if (kind, name) in self._gone:
                parts[f"gone_{kind}"].append(name)
            else:
                parts[kind].append(getattr(held, kind)[name])
        rest: dict[str, Any] = {"needs_key": held.needs_key, "workers": held.workers}
        if self._peers_changed > base:
            rest["peers"] = held.peers
        return Difference(base, held.generation, **{kind: tuple(each) for kind, each in parts.items()} | rest)


def _changes(held: Mapping[str, P], parts: Iterable[P]) -> tuple[tuple[P, ...], tuple[str, ...]]:
    """Return the parts that are new or have changed, and the names of the parts that are gone."""
    wanted = {part.name: part for part in parts}
    # Within the process that made the snapshot, nearly all parts are identical objects, which cost nothing to compare.
    changed = tuple(part for name, part in wanted.items() if (known := held.get(name)) is not part and known != part)
    return changed, tuple(name for name in held if name not in wanted)


def _replace(held: dict[str, P], parts: Iterable[P], gone: Iterable[str]) -> None:
    for name in gone:
        held.pop(name, None)
    for part in parts:
        held[part.name] = part
