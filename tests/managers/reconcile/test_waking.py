from clipper.managers.reconcile.waking import COUNTED_S, Wakings
from clipper.types import ModelId


def ids(*names: str) -> list[ModelId]:
    return [ModelId(name, "1") for name in names]


def test_a_few_wake_at_a_time_in_the_order_in_which_they_were_asked() -> None:
    wakings = Wakings(2)
    asleep = set(ids(*"abcd"))
    assert wakings.next(asleep, (), 0.0) == [] and not wakings.are_due
    wakings.ask(ids("c", "a"))
    # Who goes on asking keeps its place, and nobody wakes twice.
    wakings.ask(ids("b", "c"))
    assert wakings.next(asleep, (), 0.0) == ids("c", "a") == wakings.waking
    asleep -= set(ids("c", "a"))
    assert wakings.next(asleep, (), 0.1) == [] and wakings.are_due
    # One is ready: so the next wakes.
    assert wakings.next(asleep, set(ids("a")), 0.2) == ids("b")
    assert not wakings.are_due and wakings.waking == ids("c", "b")


def test_those_that_take_long_keep_nobody_waiting() -> None:
    wakings = Wakings(1)
    wakings.ask(ids("a", "b", "c"))
    assert wakings.next(ids("a", "b", "c"), (), 0.0) == ids("a")
    assert wakings.next(ids("b", "c"), (), COUNTED_S - 0.1) == []
    assert wakings.next(ids("b", "c"), (), COUNTED_S) == ids("b")
    # One that has fallen asleep again does not count, and one that is gone or awake need not wake.
    assert wakings.next(ids("b"), (), COUNTED_S) == [] and not wakings.are_due
    wakings.ask(ids("b"))
    assert wakings.next(ids("b"), (), COUNTED_S + 0.1) == ids("b")
