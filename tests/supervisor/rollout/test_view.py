"""A view that takes over conclusions of the one before concludes what one would that begins anew."""

from dataclasses import replace as replace_facts
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from clipper.control.snapshot import ReplicaAddress
from clipper.settings.application import Link
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout.facts import Facts, SlotFacts, changed_slots
from clipper.supervisor.rollout.view import View
from clipper.supervisor.rollout.wanted import Contents
from clipper.values.types import ModelId
from tests.example_counts import share_of
from tests.supervisor.rollout.fake_records import Records

SPECS = [VersionSpec("a", "import", "m:f"), VersionSpec("b", "import", "m:f")]
NAMES, VERSIONS, INDEXES = ["m", "n"], ["1", "2"], [1, 2]
IDS = [ModelId(name, version) for name in NAMES for version in VERSIONS]
CONCLUSIONS = ("runs", "grouped", "slots_of", "in_service", "leaving", "has_outdated")

CHANGES = st.one_of(
    st.tuples(
        st.just("slot"),
        st.sampled_from([Slot(id_.name, id_.version, index) for id_ in IDS for index in INDEXES]),
        st.sampled_from(["starting", "ready", "stopping", "dead", None]),
        st.sampled_from(SPECS),
        st.booleans(),
    ),
    st.tuples(
        st.just("version"),
        st.sampled_from(IDS),
        st.sampled_from(["starting", "ready", "sleeping", "failed", None]),
        st.sampled_from(SPECS),
        st.booleans(),
    ),
    st.tuples(st.just("model"), st.sampled_from(NAMES), st.sampled_from(VERSIONS)),
    st.tuples(st.just("pin"), st.sampled_from(NAMES), st.sampled_from([*VERSIONS, None])),
    st.tuples(st.just("nothing")),
)


class Changing:
    """Facts that change as the shell has them: what is the same is the same object, or has the same number."""

    def __init__(self) -> None:
        records = Records(models={name: ModelRecord(name) for name in NAMES})
        self.facts = Facts(0.0, records, (), (), (), revision=0, fleet_revision=0)

    def change(self, kind: str, *what: Any) -> None:
        facts, records = self.facts, self.facts.records
        assert isinstance(records, Records)
        if kind == "nothing":
            return
        if kind == "slot":
            slot, phase, spec, is_outdated = what
            known = {one.slot: one for one in facts.slots}
            known.pop(slot, None)
            if phase is not None:
                address = ReplicaAddress(f"{slot}.g1", "unix:a")
                known[slot] = SlotFacts(slot, phase, spec, str(slot), address, is_outdated=is_outdated)
            self.facts = replace_facts(facts, slots=tuple(known[one] for one in sorted(known)))
            return
        is_fleet = kind != "pin"
        if kind == "version":
            id_, state, spec, has_promotion = what
            records.versions.pop(id_, None)
            if state is not None:
                records.versions[id_] = VersionRecord(
                    id_.name,
                    id_.version,
                    spec,
                    Batching(),
                    True,
                    2,
                    0.0,
                    state,
                    "float64",
                    promotion=int(has_promotion) or None,
                )
        elif kind == "model":
            name, current = what
            records.models[name] = replace(records.models[name], current=current)
        else:
            name, pinned = what
            records.applications["app"] = ApplicationRecord("app", "float64", 20.0, links=(Link(name, pinned),))
        assert facts.revision is not None and facts.fleet_revision is not None
        self.facts = replace_facts(facts, revision=facts.revision + 1, fleet_revision=facts.fleet_revision + is_fleet)


@settings(max_examples=share_of(150), deadline=None)
@given(
    st.lists(
        st.tuples(CHANGES, st.sets(st.sampled_from([*CONCLUSIONS, "unsettled", "misplaced", "undecided"]))), max_size=14
    )
)
def test_conclusions_are_those_of_a_new_view(steps: list[tuple[tuple[Any, ...], set[str]]]) -> None:
    changing, contents = Changing(), Contents()
    view = View(changing.facts)
    for change, drawn in steps:
        changing.change(*change)
        view, fresh = View(changing.facts, view), View(changing.facts)
        # Not each look draws each conclusion.
        for name in drawn:
            if name in CONCLUSIONS:
                assert getattr(view, name) == getattr(fresh, name), name
            elif name == "undecided":
                assert view.undecided == fresh.undecided
            else:
                assert set(map(str, getattr(view, name))) == set(map(str, getattr(fresh, name))), name
        if "in_service" in drawn:
            facts = changing.facts
            made = contents.make(facts.records, view.runs, (), view.in_service, (), facts.fleet_revision)
            assert made == Contents().make(facts.records, fresh.runs, (), fresh.in_service, ())


def test_parts_of_a_content_that_have_not_changed_are_the_same_objects() -> None:
    contents, records = Contents(), Records(models={name: ModelRecord(name) for name in NAMES})
    first = contents.make(records, {}, (), {}, ())
    records.models["n"] = ModelRecord("n", "2")
    second = contents.make(records, {}, (), {}, ())
    assert second.models[0] is first.models[0] and second.models[1] != first.models[1]


def test_changed_slots_are_found_by_identity() -> None:
    one, two, three = (SlotFacts(Slot("m", "1", index), "ready", SPECS[0]) for index in (1, 2, 3))
    again = SlotFacts(Slot("m", "1", 2), "ready", SPECS[0])
    assert changed_slots((one, two), (one, two)) == ([], [])
    assert changed_slots((one, two), (one, again)) == ([again], [two])
    assert changed_slots((one, two), (two, three)) == ([three], [one])
    assert changed_slots((one,), (one, two, three)) == ([two, three], [])
    assert changed_slots((one, two, three), ()) == ([], [one, two, three])
