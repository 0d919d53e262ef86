"""Whom an application's queries may ask: its links' versions, by the names that its policy knows them by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.control.snapshot import ApplicationSnapshot
from clipper.selection.learning.arms import Arms, lineage
from clipper.selection.learning.costs import Costs
from clipper.selection.policies.ramp import Ramp
from clipper.settings.application import MAX_COST, Cost, link_names

Find = Callable[[str, str | None], ModelQueue | None]


@dataclass(frozen=True, slots=True)
class Lineup:
    """
    Attributes:
        targets: what answers for each name; None where no version runs that can.
        models: the names that the policy selects among, in the order of the links; at least one, if a link answers.
        newcomers: those that are ramped, beside them.
        shadows: those that are asked and never answer.
        ramp: how much of the queries newcomers get; None without any.
        arms: which versions the names mean.
        measured: those of the targets whose cost is measured.
    """

    targets: Mapping[str, ModelQueue | None]
    models: tuple[str, ...]
    newcomers: tuple[str, ...]
    shadows: tuple[str, ...]
    ramp: Ramp | None
    arms: Arms
    measured: Mapping[str, ModelQueue]


@dataclass(frozen=True, slots=True)
class _Place:
    """A name, the version that it means and what asking it costs; of a newcomer its ramp, and in whose place it is."""

    name: str
    model: str
    version: str | None
    cost: Cost | None = None
    ramp: int | None = None
    link: str | None = None


def line_up(snapshot: ApplicationSnapshot, predictor: Predictor, find: Find) -> Lineup:
    """Decide who is asked, by what runs now.

    A newcomer is ramped beside what it is to be compared with, as long as both run; one that came after a version which
    does not run is in its place. One that was stopped is not asked while anything else runs: a query is better answered
    by either than not at all.

    Args:
        find: what runs and takes this application's inputs, by model and version.
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
        # Each in its own link's place again.
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
    # Shadows come last, so that a version which answers is not asked as a shadow as well.
    for place in (*answering, *ramped, *shadows):
        target = find(place.model, place.version)
        # Two links may lead to one version, as when a pinned one becomes current: it is asked once.
        if place.name not in asked and (target is None or target not in targets.values()):
            targets[place.name], asked[place.name] = target, place
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
        Arms(origins, costs, {name: place.ramp for name, place in newcomers.items() if place.ramp is not None}),
        measured,
    )
