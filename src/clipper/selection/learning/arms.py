"""Maps the models' names of a policy to the versions of a state.

A policy knows an application's models by their links' names, such as ``digits``. A state keeps what was learned by
version, ``digits:2``: feedback belongs to the version that answered, whatever has become current since. A version
begins where its predecessor was, but less certain: what was learned about the predecessor counts with a weight below 1,
and about the predecessor's own with the square of it. So its own feedback soon outweighs the inherited part.

States from before versions were distinguished have numbers by model. They count in full for versions without a
predecessor, such as all that were deployed by then, and fade like all numbers.
"""

from collections.abc import Mapping, Sequence

from clipper.selection.learning.costs import NO_COSTS, Costs
from clipper.selection.learning.tally import Amount, Keyed
from clipper.selection.learning.totals import Arrays, Key, Numbers, Part, Totals

# A version whose learned numbers count, and by how much.
Origin = tuple[str, float]

# Predecessors that count less are left out: by default a state knows 1,443 observations, so this is about one.
MIN_WEIGHT = 0.001

# Keys that an application's arms remember the places of: more than the numbers of most applications' own states.
MAX_PLACES = 4096


def lineage(model: str, version: str, predecessors: Mapping[str, str | None], inherit: float) -> tuple[Origin, ...]:
    """Return the versions whose numbers a version has: its own first, in full.

    Args:
        model, version: the version.
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


class Arms:
    """Maps the names that a policy knows to those that a state keeps, and back.

    Args:
        origins: by link's name, as ``lineage`` returns them. A name that is not in it stands for itself.
        costs: by link's name.
        ramps: for names of newcomers, the numbers of their ramps.
    """

    __slots__ = ("_keyed", "_keys", "_models", "_names", "_origins", "_owners", "_places", "costs", "ramps")

    def __init__(
        self,
        origins: Mapping[str, Sequence[Origin]],
        costs: Costs = NO_COSTS,
        ramps: Mapping[str, int] | None = None,
    ) -> None:
        self._origins = origins
        self.costs = costs
        self.ramps = ramps or {}
        self._keys = {name: each[0][0] for name, each in origins.items()}
        self._owners = {key for each in origins.values() for key, _ in each}
        self._models = {key.partition(":")[0] for key in self._owners}
        # If each version stands behind one link and inherits nothing, the links' names by versions.
        self._names = {key: name for name, key in self._keys.items()}
        if any(len(each) > 1 or each[0][1] != 1.0 for each in origins.values()) or len(self._names) < len(origins):
            self._names = {}
        # What keys are mapped to, by the key: each piece of feedback maps the same few dozen, to and fro.
        self._places: dict[Key, Key | None] = {}
        self._keyed: dict[Key, Key] = {}

    def key(self, name: str) -> str:
        """Return the state's name for the version behind ``name``."""
        return self._keys.get(name, name)

    def keyed(self, increments: Keyed) -> dict[Key, Amount]:
        """Return a policy's increments by the state's names for the versions."""
        keyed: dict[Key, Amount] = {}
        for place, amount in increments.items():
            key = self._keyed.get(place)
            if key is None:
                name, number = place
                key = self.key(name), number
                if len(self._keyed) >= MAX_PLACES:
                    self._keyed.clear()
                self._keyed[place] = key
            keyed[key] = keyed.get(key, 0.0) + amount
        return keyed

    def view(self, totals: Totals) -> Totals:
        """Return a state's numbers as a policy reads them: by links' names, with the inherited part.

        Versions without a link, such as one that a query named, are left out if others of their model are linked.
        Numbers that a user's policy keeps under names of its own stay.
        """
        arrays = self._view_arrays(totals.arrays) if totals.arrays.parts else None
        numbers: Numbers = {}
        if self._names:
            places = self._places
            for key, amount in totals.numbers.items():
                if key not in places:
                    if len(places) >= MAX_PLACES:
                        places.clear()
                    places[key] = self._place(key)
                place = places[key]
                if place is not None:
                    numbers[place] = numbers[place] + amount if place in numbers else amount
            return Totals(numbers, None, self.costs, arrays)
        by_key: dict[str, list[tuple[str, float]]] = {}
        for key, amount in totals.numbers.items():
            version, number = key
            if version in self._owners:
                by_key.setdefault(version, []).append((number, amount))
            elif version.partition(":")[0] not in self._models:
                numbers[key] = amount
        of_versions: Numbers | None = None
        if any(version in by_key for origins in self._origins.values() for version, _ in origins[1:]):
            of_versions = dict(numbers)
            for name, origins in self._origins.items():
                of_versions.update(((name, number), amount) for number, amount in by_key.get(origins[0][0], ()))
        for name, origins in self._origins.items():
            for version, weight in origins:
                for number, amount in by_key.get(version, ()):
                    numbers[name, number] = numbers.get((name, number), 0.0) + weight * amount
        return Totals(numbers, of_versions, self.costs, arrays)

    def _place(self, key: Key) -> Key | None:
        """Return a number's key by the link's name, if each version stands behind one; None if it is left out."""
        model, number = key
        if model in self._names:
            return self._names[model], number
        return None if model.partition(":")[0] in self._models else key

    def _view_arrays(self, arrays: Arrays) -> Arrays:
        parts: dict[tuple[str, str, int], list[Part]] = {}
        by_key: dict[str, list[tuple[str, int, Sequence[Part]]]] = {}
        for (key, name, size), each in arrays.parts.items():
            if key in self._owners:
                by_key.setdefault(key, []).append((name, size, each))
            elif key.partition(":")[0] not in self._models:
                parts[key, name, size] = list(each)
        for link, origins in self._origins.items():
            for key, weight in origins:
                for name, size, each in by_key.get(key, ()):
                    weighted = ((amounts, weight * counts) for amounts, counts in each)
                    parts.setdefault((link, name, size), []).extend(weighted)
        return Arrays(parts, arrays.memo)

    def with_key(self, name: str, key: str) -> "Arms":
        """Return the same with one name for another version, and without newcomers."""
        return Arms({**self._origins, name: ((key, 1.0),)}, self.costs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arms) and (self._origins, self.costs, self.ramps) == (
            other._origins,
            other.costs,
            other.ramps,
        )

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


NO_ARMS = Arms({})
