"""Differences lead to what the whole snapshot says, however messages are lost, come twice or late, and whoever is
restarted meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from clipper.control.difference import EPOCH_BITS, Changes, Difference, Holding
from clipper.control.messages import ApplyDifference, decode_command, encode
from clipper.control.snapshot import (
    ApplicationSnapshot,
    KeySnapshot,
    ModelSnapshot,
    Peer,
    ReplicaAddress,
    Snapshot,
    VersionSnapshot,
)
from clipper.settings.application import Link
from tests.example_counts import share_of

NAMES = ["a", "b", "c", "d"]
WORKERS = 3


def application(name: str, slo_ms: float = 20.0, links: tuple[str, ...] = ()) -> ApplicationSnapshot:
    return ApplicationSnapshot(name, "float64", slo_ms, links=tuple(map(Link, links)))


def model(name: str, *replicas: str) -> ModelSnapshot:
    addresses = tuple(ReplicaAddress(one, f"unix:{one}") for one in replicas)
    return ModelSnapshot(name, "1", (VersionSnapshot("1", "float64", replicas=addresses),))


def key(name: str, digest: str = "d") -> KeySnapshot:
    return KeySnapshot(name, digest)


def parts(snapshot: Snapshot) -> Mapping[str, Any]:
    """The contents of a snapshot, whatever order its parts are in."""
    return {
        "generation": snapshot.generation,
        "applications": {one.name: one for one in snapshot.applications},
        "models": {one.name: one for one in snapshot.models},
        "keys": {one.name: one for one in snapshot.keys},
        "peers": snapshot.peers,
        "needs_key": snapshot.needs_key,
        "workers": snapshot.workers,
    }


@dataclass
class FakeWorker:
    """``acknowledged``: what the supervisor has heard of it."""

    held: Holding = field(default_factory=Holding)
    acknowledged: int | None = None
    inbox: list[Snapshot | Difference] = field(default_factory=list)

    def take(self, told: Snapshot | Difference) -> tuple[int, bool]:
        """As a worker does; returns its generation, and whether it needs the whole."""
        if isinstance(told, Difference) and told.base > self.held.generation:
            return self.held.generation, True
        if told.generation >= self.held.generation:
            difference = self.held.difference_to(told) if isinstance(told, Snapshot) else told
            assert self.held.takes(difference)
            self.held.follow(difference)
        return self.held.generation, False


class Channel(RuleBasedStateMachine):
    """A supervisor, some workers, and what is on its way between them."""

    @initialize(max_gone=st.sampled_from([0, 1, 3, 1000]))
    def begin(self, max_gone: int) -> None:
        self.max_gone = max_gone
        self.epoch = 1
        self.newest = Snapshot(self.epoch << EPOCH_BITS)
        self.wanted = self.newest
        self.told: dict[int, Snapshot] = {}
        self.workers = [FakeWorker() for _ in range(WORKERS)]
        self.changes = Changes(max_gone)
        self.push()

    @rule(
        kind=st.sampled_from(["applications", "models", "keys"]),
        name=st.sampled_from(NAMES),
        number=st.integers(0, 2),
        links=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def put(self, kind: str, name: str, number: int, links: set[str]) -> None:
        new: Any = {
            "applications": application(name, 20.0 + number, tuple(sorted(links))),
            "models": model(name, *map(str, range(number))),
            "keys": key(name, str(number)),
        }[kind]
        before = [one for one in getattr(self.wanted, kind) if one.name != name]
        self.wanted = replace(self.wanted, **{kind: (*before, new)})

    @rule(kind=st.sampled_from(["applications", "models", "keys"]), name=st.sampled_from(NAMES))
    def remove(self, kind: str, name: str) -> None:
        left = tuple(one for one in getattr(self.wanted, kind) if one.name != name)
        self.wanted = replace(self.wanted, **{kind: left})

    @rule(peers=st.integers(0, 3), needs_key=st.booleans(), workers=st.integers(1, 3))
    def change_the_rest(self, peers: int, needs_key: bool, workers: int) -> None:
        all_peers = tuple(Peer(number, f"w{number}") for number in range(peers))
        self.wanted = replace(self.wanted, peers=all_peers, needs_key=needs_key, workers=workers)

    @rule()
    def push(self) -> None:
        self.newest = self.wanted = replace(self.wanted, generation=self.newest.generation + 1)
        self.told[self.newest.generation] = self.newest
        self.changes.follow(self.newest)

    @rule(index=st.integers(0, WORKERS - 1))
    def send(self, index: int) -> None:
        worker = self.workers[index]
        base = worker.acknowledged
        difference = None if base is None else self.changes.since(base)
        worker.inbox.append(self.newest if difference is None else difference)

    @rule(index=st.integers(0, WORKERS - 1), which=st.randoms(use_true_random=False), fate=st.sampled_from("onlr"))
    def deliver(self, index: int, which: Random, fate: str) -> None:
        """Any message, once or again; it or its reply may be lost."""
        worker = self.workers[index]
        if not worker.inbox:
            return
        told = which.choice(worker.inbox)
        if fate != "r":
            worker.inbox.remove(told)
        if fate == "l":
            return
        generation, needs_whole = worker.take(told)
        if needs_whole:
            worker.acknowledged = None
        elif fate != "n" and generation >> EPOCH_BITS == self.epoch:
            worker.acknowledged = max(worker.acknowledged or 0, generation)

    @rule(index=st.integers(0, WORKERS - 1))
    def restart_worker(self, index: int) -> None:
        self.workers[index] = FakeWorker()

    @rule()
    def restart_supervisor(self) -> None:
        """Messages of the former one may still come."""
        self.epoch += 1
        self.newest = replace(self.newest, generation=self.epoch << EPOCH_BITS)
        self.changes = Changes(self.max_gone)
        for worker in self.workers:
            worker.acknowledged = None
        self.push()

    @rule()
    def jump(self) -> None:
        """A worker was ahead: the supervisor takes a higher epoch, and goes on."""
        self.epoch += 1
        self.newest = replace(self.newest, generation=self.epoch << EPOCH_BITS)
        self.push()

    @invariant()
    def each_worker_has_a_snapshot_that_was_told(self) -> None:
        for worker in self.workers:
            generation = worker.held.generation
            if generation:
                assert parts(worker.held.snapshot()) == parts(self.told[generation])
            for name in NAMES:
                linking = {
                    one.name for one in worker.held.applications.values() for link in one.links if link.model == name
                }
                assert set(worker.held.linking(name)) == linking

    def teardown(self) -> None:
        for worker in self.workers:
            difference = None if worker.acknowledged is None else self.changes.since(worker.acknowledged)
            _, needs_whole = worker.take(self.newest if difference is None else difference)
            if needs_whole:
                worker.take(self.newest)
            assert parts(worker.held.snapshot()) == parts(self.newest)


TestChannel = pytest.mark.filterwarnings("ignore")(Channel.TestCase)
TestChannel.settings = settings(max_examples=share_of(60), stateful_step_count=40, deadline=None)


def changes_of(*snapshots: Snapshot, max_gone: int = 10) -> Changes:
    changes = Changes(max_gone)
    for one in snapshots:
        changes.follow(one)
    return changes


def test_a_difference_has_what_changed_and_nothing_else() -> None:
    first = Snapshot(1, (application("a"), application("b")), (model("m"), model("n")), keys=(key("k"),))
    second = replace(first, generation=2, models=(model("m", "r1"), model("n")))
    third = replace(second, generation=3, applications=(application("a"),), peers=(Peer(1, "w1"),))
    changes = changes_of(first, second, third)
    assert changes.since(1) == Difference(
        1, 3, models=(model("m", "r1"),), gone_applications=("b",), peers=(Peer(1, "w1"),)
    )
    assert changes.since(2) == Difference(2, 3, gone_applications=("b",), peers=(Peer(1, "w1"),))
    assert changes.since(3) == Difference(3, 3)


def test_a_change_back_is_told_since_some_may_have_the_one_between() -> None:
    first = Snapshot(1, (application("a", 20.0),))
    second = Snapshot(2, (application("a", 30.0),))
    difference = changes_of(first, second, replace(first, generation=3)).since(1)
    assert difference is not None and difference.applications == first.applications


def test_the_whole_is_needed_where_no_base_is_known() -> None:
    changes = changes_of(Snapshot(5), Snapshot(6))
    assert changes.since(4) is None, "it is of before the first"
    assert changes.since(7) is None, "it is none of ours"
    epoch = 1 << EPOCH_BITS
    changes.follow(Snapshot(epoch + 1))
    assert changes.since(6) is None, "another supervisor may have had this generation"
    assert changes.since(epoch + 1) is not None


def test_one_a_thousand_generations_behind_is_told_each_part_once() -> None:
    parts = {f"app-{number}": application(f"app-{number}") for number in range(20)}
    first = Snapshot(1, tuple(parts.values()), (model("m"),))
    changes, late, newest = changes_of(first), Holding(), first
    late.follow(late.difference_to(first))
    for generation in range(2, 1002):
        name = f"app-{generation % 20}"
        if generation % 3:
            parts[name] = application(name, float(generation))
        else:
            parts.pop(name, None)
        newest = Snapshot(generation, tuple(parts.values()), (model("m", f"r{generation}"),))
        changes.follow(newest)
    difference = changes.since(1)
    assert difference is not None and difference.models == newest.models
    assert len(difference.applications) + len(difference.gone_applications) == 20
    late.follow(difference)
    assert sorted(late.snapshot().applications, key=lambda one: one.name) == sorted(
        newest.applications, key=lambda one: one.name
    )


def test_names_that_are_gone_are_told_of_within_a_bound() -> None:
    whole = Snapshot(1, tuple(application(name) for name in NAMES))
    gone = [replace(whole, generation=2 + n, applications=whole.applications[n + 1 :]) for n in range(len(NAMES))]
    changes = changes_of(whole, *gone, max_gone=2)
    assert changes.since(1) is None and changes.since(2) is None
    difference = changes.since(3)
    assert difference is not None and sorted(difference.gone_applications) == NAMES[2:]
    # One that comes back is not gone.
    changes.follow(replace(whole, generation=6, applications=(application("d"),)))
    difference = changes.since(3)
    assert difference is not None
    assert (difference.gone_applications, difference.applications) == (("c",), (application("d"),))


def test_a_difference_survives_the_channel() -> None:
    difference = Difference(3, 9, (application("a"),), (model("m", "r"),), (key("k"),), ("x",), ("y",), ("z",), ())
    command = ApplyDifference(difference, None, True)
    assert decode_command(encode(command)[4:]) == command
