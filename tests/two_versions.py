"""A desk whose two containers are versions 1 and 2 of one model m."""

import msgspec

from clipper.control.snapshot import ModelSnapshot, Newcomer, Snapshot, VersionSnapshot
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching
from clipper.worker.selection.application import Application
from tests.selection_desk import ROW, Asking, Desk
from tests.small_container import SmallContainer

# Two containers, which stand for versions 1 and 2 of one model m.
TWO = {"a": b"1", "b": b"2"}


async def with_versions(
    desk: Desk, selection: Selection, *links: Link, current: str = "2", newcomers: tuple[Newcomer, ...] = ()
) -> Application:
    folder = next(iter(desk.models.containers.values())).path.parent
    for number, name in enumerate(TWO, 1):
        await desk.models.containers[name].kill()
        desk.models.containers[name] = SmallContainer(folder / f"m{number}.s", "m", str(number))
    await desk.models.start()
    show(desk, current)
    await desk.predictor.settle()
    snapshot = msgspec.structs.replace(desk.snapshot(selection), links=links, newcomers=newcomers)
    application = Application(snapshot, desk.surroundings)
    await application.load()
    return application


def show(desk: Desk, current: str, without: str = "") -> None:
    """Tell of the versions, with this one current; the second came after the first. One may be without a replica."""
    replicas = {str(number): each.replica for number, each in enumerate(desk.models.containers.values(), 1)}
    versions = tuple(
        VersionSnapshot(
            number,
            "doubles",
            Batching(),
            False,
            () if number == without else (replica,),
            predecessor="1" if number == "2" else None,
        )
        for number, replica in replicas.items()
    )
    desk.predictor.apply(Snapshot(2, (), (ModelSnapshot("m", current, versions),)))


async def ask_version(desk: Desk, application: Application, version: str) -> Asking:
    asking = Asking()
    query = application.predict(ROW, asking, desk.loop.time(), version=version)
    await desk.serve_until(lambda: query.done)
    return asking


def scored(application: Application, name: str) -> tuple[float, float]:
    totals = application.contexts.prior()
    return totals.number(name, "scored"), totals.number(name, "loss")
