"""Lines up the models that an application's queries may ask: its links' versions, under the policy's names for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from clipper.control.snapshot import ApplicationSnapshot, Newcomer
from clipper.learning.mathematics.arms import Arms, lineage
from clipper.learning.mathematics.costs import Costs
from clipper.learning.policies.ramp import Ramp
from clipper.learning.policies.trials import Tried
from clipper.settings.application import MAX_COST, Cost, link_names
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.predictor import Predictor

Find = Callable[[str, str | None], ModelQueue | None]


@dataclass(frozen=True, slots=True)
class Lineup:
    """
    Attributes:
        targets: the queue for each name; None if no suitable version runs.
        models: the names that the policy selects among, in the order of the links; at least one if a link answers.
        newcomers: ramped versions, in addition to the models.
        ramp: the newcomers' share of the queries; None without newcomers.
        arms: the versions behind the names.
        tried: the newcomers on trial, by the names under which they are asked.
    """

    targets: Mapping[str, ModelQueue | None]
    models: tuple[str, ...]
    newcomers: tuple[str, ...]
    shadows: tuple[str, ...]
    ramp: Ramp | None
    arms: Arms
    measured: Mapping[str, ModelQueue]
    tried: Mapping[str, Tried]


@dataclass(frozen=True, slots=True)
class _Place:
    """A name with its version and cost; a newcomer also has its ramp, and the model whose place it takes."""

    name: str
    model: str
    version: str | None
    cost: Cost | None = None
    ramp: int | None = None
    link: str | None = None


def line_up(snapshot: ApplicationSnapshot, predictor: Predictor, find: Find) -> Lineup:
    """Decide which models may be asked, given the running versions.

    A newcomer is ramped beside the version that it is compared with, while both run. If the version before it does not
    run, the newcomer takes its place. A stopped newcomer is not asked while anything else runs: an answer by it is
    still better than none.

    A watched newcomer has its link's place, and the version before it has a name of its own, such as ``digits:1``.

    Args:
        find: returns the running version that takes this application's inputs, by model and version.
    """

    def runs(place: _Place) -> bool:
        target = find(place.model, place.version)
        return target is not None and target.has_replicas

    known = {(each.model, each.version): each for each in snapshot.newcomers}
    answering: list[_Place] = []
    ramped: list[_Place] = []
    stopped: list[_Place] = []
    shadows: list[_Place] = []
    for name, link in zip(link_names(snapshot.links), snapshot.links):
        version = link.version or predictor.current(link.model)
        place = _Place(name, link.model, version, link.cost)
        newcomer = None if version is None or link.shadow else known.get((link.model, version))
        if newcomer is None:
            (shadows if link.shadow else answering).append(place)
        elif newcomer.stopped is not None:
            stopped.append(place)
        elif newcomer.before is None:
            ramped.append(_Place(name, link.model, version, link.cost, newcomer.ramp))
        elif runs(before := _Place(name, link.model, newcomer.before, link.cost)):
            answering.append(before)
            ramped.append(_Place(newcomer.name, link.model, version, link.cost, newcomer.ramp, name))
        else:
            answering.append(place)

    share = snapshot.selection.ramp
    if share is None or not any(map(runs, answering)):
        # Each newcomer goes back to the place of its own link.
        taken = {place.link for place in ramped}
        answering = [place for place in answering if place.name not in taken]
        answering += [_Place(place.link or place.name, place.model, place.version, place.cost) for place in ramped]
        ramped = []
    ramped = [place for place in ramped if runs(place)]
    if not any(map(runs, answering)):
        answering, stopped = answering + stopped, []
    order = {name: index for index, name in enumerate(link_names(snapshot.links))}
    answering.sort(key=lambda place: order[place.name])

    targets: dict[str, ModelQueue | None] = {}
    asked: dict[str, _Place] = {}
    watched = _watched(snapshot, answering, runs)
    # Shadows come last, so that a version that answers is not asked as a shadow, too. Versions that watched newcomers
    # replace come after them, since they may share their queue with any other.
    for place in (*answering, *ramped, *shadows):
        target = find(place.model, place.version)
        # Two links may lead to the same version, as when a pinned version becomes current; it is asked once.
        if place.name not in asked and (target is None or target not in targets.values()):
            targets[place.name], asked[place.name] = target, place
    for other, _ in watched.values():
        if other is not None and other.name not in asked:
            targets[other.name], asked[other.name] = find(other.model, other.version), other
    origins = {
        name: lineage(place.model, place.version, predictor.predecessors(place.model), snapshot.selection.inherit)
        for name, place in asked.items()
        if place.version is not None
    }
    measured = {name: target for name, target in targets.items() if target is not None and asked[name].cost == "auto"}
    by_name = {name: place.cost for name, place in asked.items() if isinstance(place.cost, float | int)}
    row_ms = {name: target.compute_time.row_ms for name, target in measured.items()}
    by_name |= {name: min(cost, MAX_COST) for name, cost in row_ms.items() if cost is not None}
    costs = Costs(by_name, snapshot.selection.cost_weight)
    newcomers = {place.name: place for place in ramped if asked.get(place.name) is place}
    return Lineup(
        targets,
        tuple(place.name for place in answering if asked.get(place.name) is place),
        tuple(newcomers),
        tuple(place.name for place in shadows if asked.get(place.name) is place),
        Ramp({name: place.link for name, place in newcomers.items()}, share) if newcomers and share else None,
        Arms(
            origins,
            costs,
            {name: place.ramp for name, place in newcomers.items() if place.ramp is not None},
            dict(chain.from_iterable(predictor.state_keys(link.model).items() for link in snapshot.links)),
        ),
        measured,
        {name: Tried(place.ramp, place.link, is_watched=False) for name, place in newcomers.items() if place.ramp}
        | {
            name: Tried(one.ramp, None if place is None else place.name, is_watched=place is not None)
            for name, (place, one) in watched.items()
            if asked.get(name) in answering
        },
    )


def _watched(
    snapshot: ApplicationSnapshot, answering: Sequence[_Place], runs: Callable[[_Place], bool]
) -> dict[str, tuple[_Place | None, Newcomer]]:
    """Return the watched newcomers by their names, each with the place of the version before it if there was one.

    A newcomer whose version before does not run is not watched: it could not be rolled back.
    """
    known = {(each.model, each.version): each for each in snapshot.watched}
    found: dict[str, tuple[_Place | None, Newcomer]] = {}
    for place in answering:
        newcomer = known.get((place.model, place.version or ""))
        if newcomer is None:
            continue
        before = newcomer.before
        other = None if before is None else _Place(f"{place.model}:{before}", place.model, before, place.cost)
        if other is None or runs(other):
            found[place.name] = other, newcomer
    return found
