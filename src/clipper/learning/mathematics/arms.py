"""Maps the models' names of a policy to the versions of a state.

A policy knows an application's models by their links' names, such as ``digits``. A state keeps its numbers by version,
``digits:2``: feedback belongs to the version that answered, whatever has become current since. A version begins where
its predecessor was, but less certain: the predecessor's numbers count with a weight below 1, and those of the
predecessor's predecessor with its square. So a version's own feedback soon outweighs the inherited part.

States from before versions were distinguished have numbers by model. These count in full for versions without a
predecessor, such as all versions that were deployed by then, and fade like all numbers.

Servers that share a store may have different code under one name: a version without a name of its own is ``1`` in each
fresh home. So a state names a version by its **state key**, which its content decides. Earlier Clippers wrote, and
still write, under ``digits:2``. Such numbers belong to the first content of that name that learns beside them, which
leaves a mark in the application's own state; until then they count for every content of that name.
"""

from collections.abc import Collection, Mapping, Sequence

from clipper.learning.mathematics.costs import NO_COSTS, Costs
from clipper.learning.mathematics.totals import Amount, Arrays, Key, Keyed, Numbers, Part, Totals
from clipper.learning.mathematics.weighing import lineup_id

# A version whose learned numbers count, and the weight with which they count.
Origin = tuple[str, float]
# The beginning and the end of the name of the number by which a content takes over a version's earlier numbers.
_TAKES, _NEVER = "takes.", "~never"
# A place where a number counts: its key there, its weight, and whether it is a predecessor's number.
_Place = tuple[Key, float, bool]

# Predecessors with a smaller weight are left out: by default a state knows 1,443 observations, so this is about one.
MIN_WEIGHT = 0.001

# Keys whose places are remembered, for a moment: more than the numbers of most applications' own states.
MAX_PLACES = 16_384


def lineage(model: str, version: str, predecessors: Mapping[str, str | None], inherit: float) -> tuple[Origin, ...]:
    """Return the versions whose numbers a version has: its own first, in full.

    Args:
        predecessors: for each known version of the model, the version that was current when it was deployed, or None.
        inherit: how much of a predecessor's numbers counts, from 0 to 1.
    """
    origins = [(f"{model}:{version}", 1.0)]
    weight = 1.0
    seen = {version}
    while (before := predecessors.get(version)) is not None and before not in seen and weight * inherit >= MIN_WEIGHT:
        weight *= inherit
        origins.append((f"{model}:{before}", weight))
        seen.add(before)
        version = before
    if predecessors.get(version) is None:
        origins.append((model, weight))
    return tuple(origins)


def owners_of(numbers: Numbers) -> dict[str, str]:
    """Return which state key has taken over the numbers under a version's name, by that name.

    If two took them over in one moment, all servers see both marks, and agree on the lesser.
    """
    owners: dict[str, str] = {}
    for key, name in numbers:
        if name.startswith(_TAKES):
            taken = f"{key.partition(':')[0]}:{name[len(_TAKES) : -len(_NEVER)]}"
            owners[taken] = min(key, owners.get(taken, key))
    return owners


def by_version(totals: Totals, state_keys: Mapping[str, str], owners: Mapping[str, str]) -> Totals:
    """Return a state's totals by a server's names for its versions, and by state keys for all other contents.
    ``owners``: ``owners_of`` the application's own state, which may be another.
    """
    names = {key: name for name, key in state_keys.items()}
    numbers: Numbers = {}
    for (key, name), amount in totals.numbers.items():
        owner = owners.get(key, key)
        place = names.get(owner, owner), name
        numbers[place] = numbers.get(place, 0.0) + amount
    return Totals(numbers)


class Arms:
    """Maps the names that a policy knows to the names that a state keeps, and back.

    Args:
        origins: results of ``lineage``, by link's name. A name that is not in it stands for itself.
        costs: the costs of models, by link's name.
        ramps: the numbers of ramps, by the newcomer's name.
        state_keys: the state keys of versions, by ``MODEL:VERSION``; a version without one is known by that name.
        lost: names of versions whose numbers, under that name, belong to another content.

    Attributes:
        lineup: names these versions in a state's weighed sums.
    """

    __slots__ = (
        "_keyed",
        "_keys",
        "_links",
        "_lost",
        "_models",
        "_names",
        "_origins",
        "_places",
        "_state_keys",
        "costs",
        "lineup",
        "ramps",
    )

    def __init__(
        self,
        origins: Mapping[str, Sequence[Origin]],
        costs: Costs = NO_COSTS,
        ramps: Mapping[str, int] | None = None,
        state_keys: Mapping[str, str] | None = None,
        lost: Collection[str] = (),
    ) -> None:
        self._origins = origins
        self._state_keys = state_keys or {}
        self._names = {key: name for name, key in self._state_keys.items()}
        self._lost = frozenset(lost)
        self.costs = costs
        self.ramps = ramps or {}
        self._keys = {name: each[0][0] for name, each in origins.items()}
        self.lineup = lineup_id([self._state_keys.get(key, key) for key in self._keys.values()])
        self._models = {key.partition(":")[0] for each in origins.values() for key, _ in each}
        # By version, the links that have its numbers.
        self._links: dict[str, list[tuple[str, float, bool]]] = {}
        for name, each in origins.items():
            for rank, (version, weight) in enumerate(each):
                self._links.setdefault(version, []).append((name, weight, rank > 0))
        # The places of keys: each piece of feedback maps the same few dozen keys, to and fro.
        self._places: dict[Key, list[_Place]] = {}
        self._keyed: dict[Key, Key] = {}

    @property
    def names(self) -> Collection[str]:
        """Return the names of all versions that may be asked."""
        return self._keys.keys()

    def key(self, name: str) -> str:
        """Return the version behind ``name``, as ``MODEL:VERSION``."""
        return self._keys.get(name, name)

    def takes(self, numbers: Numbers) -> dict[Key, Amount]:
        """Return the marks that a state still needs: that its numbers under versions' names belong to these contents.
        ``numbers``: the application's own numbers.
        """
        by_name = {name for name, _ in numbers if name in self._links and name in self._state_keys}
        return {
            (self._state_keys[name], f"{_TAKES}{name.partition(':')[2]}{_NEVER}"): 1.0
            for name in by_name - owners_of(numbers).keys()
        }

    def beside(self, numbers: Numbers) -> "Arms":
        """Return these arms without the numbers that other contents have taken over, by the application's numbers."""
        lost = {name for name, key in owners_of(numbers).items() if self._state_keys.get(name, key) != key}
        if lost == self._lost:
            return self
        return Arms(self._origins, self.costs, self.ramps, self._state_keys, lost)

    def keyed(self, increments: Keyed) -> dict[Key, Amount]:
        """Return a policy's increments by the state's names for the versions."""
        keyed: dict[Key, Amount] = {}
        for place, amount in increments.items():
            key = self._keyed.get(place)
            if key is None:
                name, number = place
                version = self.key(name)
                key = self._state_keys.get(version, version), number
                if len(self._keyed) >= MAX_PLACES:
                    self._keyed.clear()
                self._keyed[place] = key
            keyed[key] = keyed.get(key, 0.0) + amount
        return keyed

    def view(self, totals: Totals) -> Totals:
        """Return a state's numbers as a policy reads them: by links' names, with the inherited part.

        A version without a link, such as a version that a query named, is left out if another version of its model is
        linked. Numbers that a user's policy keeps under names of its own stay.
        """
        arrays = self._view_arrays(totals.arrays) if totals.arrays.parts else None
        numbers: Numbers = {}
        inherits = False
        for key, amount in totals.numbers.items():
            for place, weight, is_inherited in self._places_of(key):
                numbers[place] = numbers.get(place, 0.0) + weight * amount
                inherits = inherits or is_inherited
        if not inherits:
            return Totals(numbers, None, self.costs, arrays)
        of_versions: Numbers = {}
        for key, amount in totals.numbers.items():
            for place, _, is_inherited in self._places_of(key):
                if not is_inherited:
                    of_versions[place] = of_versions.get(place, 0.0) + amount
        return Totals(numbers, of_versions, self.costs, arrays)

    def _places_of(self, key: Key) -> list[_Place]:
        """Return where a state's number counts."""
        places = self._places.get(key)
        if places is None:
            version, number = key
            links = self._links.get(self._names.get(version, version)) if version not in self._lost else ()
            places = [((name, number), weight, is_inherited) for name, weight, is_inherited in links or ()]
            if links is None and version.partition(":")[0] not in self._models:
                places = [(key, 1.0, False)]
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            self._places[key] = places
        return places

    def _view_arrays(self, arrays: Arrays) -> Arrays:
        parts: dict[tuple[str, str, int], list[Part]] = {}
        by_key: dict[str, list[tuple[str, int, Sequence[Part]]]] = {}
        for (key, name, size), each in arrays.parts.items():
            if key in self._lost:
                continue
            version = self._names.get(key, key)
            if version in self._links:
                by_key.setdefault(version, []).append((name, size, each))
            elif key.partition(":")[0] not in self._models:
                parts[key, name, size] = list(each)
        for link, origins in self._origins.items():
            for key, weight in origins:
                for name, size, each in by_key.get(key, ()):
                    weighted = ((amounts, weight * counts) for amounts, counts in each)
                    parts.setdefault((link, name, size), []).extend(weighted)
        return Arrays(parts, arrays.memo)

    def with_key(self, name: str, key: str) -> "Arms":
        """Return equal arms in which one name stands for another version, and without newcomers."""
        return Arms({**self._origins, name: ((key, 1.0),)}, self.costs, None, self._state_keys)

    def arguments(
        self,
    ) -> tuple[Mapping[str, Sequence[Origin]], Costs, Mapping[str, int], Mapping[str, str], frozenset[str]]:
        """Return the arguments that make equal arms."""
        return self._origins, self.costs, self.ramps, self._state_keys, self._lost

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arms) and self.arguments() == other.arguments()

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


NO_ARMS = Arms({})
