"""Which versions are newcomers, by what an operator does."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import (
    Newcomer,
)
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout.newcomers import (
    after_link,
    after_other_change,
    after_promotion,
    compared_with,
    ended_ramps,
    proven,
    stopped,
    through,
    unwatched,
)
from clipper.values.types import ModelId

CURRENT: Mapping[str, str | None] = {"a": "1", "b": "1", "none": None}

ENDED = EndedRamp("a", "1", 100.0, 200, 3800, 0.1, 0.12)


def deployed(model: str, version: str, created_at: float) -> VersionRecord:
    spec = VersionSpec("0" * 64, "import", "m:predict")
    return VersionRecord(model, version, spec, Batching(), True, 1, created_at, state="ready")


def record(*links: Link, policy: str = "thompson", ramp: float | None = 0.05) -> ApplicationRecord:
    return ApplicationRecord("app", "doubles", 20.0, None, Selection(policy, ramp=ramp), links)


def current(model: str) -> str | None:
    return CURRENT.get(model)


def link(before: ApplicationRecord, new: Link, replaced: Link | None = None) -> ApplicationRecord:
    kept = tuple(new if each is replaced else each for each in before.links)
    after = replace(before, links=kept if replaced else (*kept, new))
    return after_link(before, after, new, replaced, current)


def promote(before: ApplicationRecord, version: str, was: str | None, *, is_new: bool = True) -> ApplicationRecord:
    def then(model: str) -> str | None:
        return version if model == "a" else current(model)

    return after_promotion(before, "a", version, was, is_new=is_new, current=then)


def pairs(made: ApplicationRecord) -> list[tuple[str, str, str | None, bool]]:
    return [(one.model, one.version, one.before, one.promoted) for one in made.newcomers]


def test_a_link_beside_others_is_new_and_the_first_is_not() -> None:
    assert link(record(), Link("a")).newcomers == ()
    assert link(record(Link("none")), Link("a")).newcomers == (), "what has not come up is no comparison"
    assert link(record(Link("b", shadow=True)), Link("a")).newcomers == ()
    made = link(record(Link("b")), Link("a"))
    assert made.newcomers == (Newcomer(1, "a", "1"),) and made.ramps == 1
    made = link(made, Link("a", "2"))
    assert pairs(made)[1] == ("a", "2", None, False) and made.ramps == 2, "each has a number of its own"


@pytest.mark.parametrize(
    "before",
    [
        record(Link("b"), policy="single"),
        replace(record(Link("b")), selection=Selection("ensemble", {"weighting": "equal"})),
        record(Link("b"), ramp=None),
    ],
)
def test_without_learning_or_a_ramp_none_is_new(before: ApplicationRecord) -> None:
    assert link(before, Link("a")).newcomers == ()
    assert promote(replace(before, links=(Link("a"),)), "2", "1").newcomers == ()


def test_an_ensemble_learns_where_it_weighs() -> None:
    weighs = record(Link("b"), policy="ensemble")
    assert pairs(link(weighs, Link("a"))) == [("a", "1", None, False)]


def test_a_policy_of_ones_own_is_taken_to_learn() -> None:
    assert pairs(link(record(Link("b"), policy="mine:Mine"), Link("a"))) == [("a", "1", None, False)]


def test_shadows_and_what_has_not_come_up_are_not_new_until_they_answer() -> None:
    beside = record(Link("b"))
    shadowed = link(beside, Link("a", shadow=True))
    assert shadowed.newcomers == () and link(beside, Link("none")).newcomers == ()
    assert pairs(link(shadowed, Link("a"), shadowed.links[1])) == [("a", "1", None, False)]
    came_up = promote(record(Link("b"), Link("a")), "1", None)
    assert pairs(came_up) == [("a", "1", None, True)]
    assert promote(record(Link("a")), "1", None).newcomers == (), "alone it has nothing to be compared to"


def test_a_link_that_is_changed_asks_the_version_before_meanwhile() -> None:
    old = Link("a", "1")
    made = link(record(old), Link("a", "2"), old)
    assert pairs(made) == [("a", "2", "1", False)] and compared_with([made]) == {ModelId("a", "1")}
    again = link(made, Link("a", "2"), made.links[0])
    assert again == made, "the same link once more changes nothing"
    third = link(made, Link("a", "3"), made.links[0])
    assert pairs(third) == [("a", "3", "1", False)], "what most queries go to is still the first"
    assert link(made, Link("a", "1"), made.links[0]).newcomers == (), "back to it there is nothing to compare"
    assert link(record(Link("a")), Link("a", "1"), Link("a")).newcomers == ()


def test_two_links_to_one_version_make_it_no_newcomer() -> None:
    assert link(record(Link("a"), Link("b")), Link("a", "1")).newcomers == ()
    assert promote(record(Link("a"), Link("a", "2")), "2", "1").newcomers == ()


def test_a_deployed_version_is_new_and_one_rolled_back_to_is_not() -> None:
    before = record(Link("a"))
    made = promote(before, "2", "1")
    assert pairs(made) == [("a", "2", "1", True)]
    assert promote(before, "2", "1", is_new=False).newcomers == ()
    assert promote(made, "1", "2", is_new=False).newcomers == ()
    third = promote(made, "3", "2")
    assert pairs(third) == [("a", "3", "1", True)] and compared_with([third]) == {ModelId("a", "1")}
    assert promote(record(Link("a", "1")), "2", "1").newcomers == (), "a pinned link does not follow"
    assert promote(record(Link("b")), "2", "1").newcomers == ()


def test_a_promotion_leaves_the_newcomers_of_other_models_alone() -> None:
    beside = link(record(Link("a")), Link("b"))
    assert pairs(promote(beside, "2", "1")) == [("b", "1", None, False), ("a", "2", "1", True)]


def test_a_newcomer_that_no_link_leads_to_any_more_is_none() -> None:
    old = Link("a", "1")
    made = link(record(old), Link("a", "2"), old)
    assert after_other_change(replace(made, links=(Link("a", "3"),)), current, lambda _: True).newcomers == ()


def test_a_stopped_version_stays_so_until_somebody_does_something() -> None:
    made = link(record(Link("b")), Link("a"))
    bad = stopped(made, made.newcomers[0], "it lost more")
    assert bad.newcomers[0].stopped == "it lost more" and bad.links == made.links and compared_with([bad]) == set()
    assert (
        compared_with([stopped(promoted := promote(record(Link("a")), "2", "1"), promoted.newcomers[0], "")]) == set()
    )
    exists = {ModelId("a", "1"), ModelId("b", "1")}.__contains__
    assert after_other_change(bad, current, exists) == bad
    retried = link(bad, Link("a"), bad.links[1])
    assert retried.newcomers == (Newcomer(2, "a", "1"),)
    assert after_other_change(replace(bad, links=(Link("b"),)), current, exists).newcomers == ()
    # All others were unlinked: then it is what there is.
    assert after_other_change(replace(bad, links=(Link("a"),)), current, exists).newcomers == ()
    # A ramp set to none ends ramps, and lets nobody in that was stopped.
    off = replace(bad, selection=Selection("thompson", ramp=None))
    assert after_other_change(off, current, exists).newcomers == bad.newcomers
    off = replace(made, selection=Selection("thompson", ramp=None))
    assert after_other_change(off, current, exists).newcomers == ()


def test_a_promoted_one_that_was_stopped_is_told_of_until_the_next() -> None:
    made = promote(record(Link("a")), "2", "1")
    bad = stopped(made, made.newcomers[0], "it lost more")
    exists = {ModelId("a", version) for version in "123"}.__contains__
    assert bad.links == (Link("a"),), "the model is rolled back, so that the link leads to the version before"
    assert after_other_change(bad, current, exists) == bad
    assert pairs(promote(bad, "3", "1")) == [("a", "3", "1", True)]
    assert promote(bad, "2", "1", is_new=False).newcomers == (), "an operator may have it nevertheless"
    assert after_other_change(bad, current, lambda id_: id_.version != "2").newcomers == ()


def test_a_changed_link_goes_back_when_its_version_is_stopped() -> None:
    old = Link("a", "1")
    made = link(record(old, Link("b")), Link("a", "2"), old)
    bad = stopped(made, made.newcomers[0], "it lost more")
    assert bad.links == (old, Link("b")) and bad.newcomers[0].stopped
    again = link(bad, Link("a", "2"), bad.links[0])
    assert pairs(again) == [("a", "2", "1", False)] and again.newcomers[0].stopped is None


def test_a_ramp_ends_when_what_it_is_compared_with_is_gone() -> None:
    made = promote(record(Link("a")), "2", "1")

    def then(model: str) -> str | None:
        return "2" if model == "a" else current(model)

    assert after_other_change(made, then, {ModelId("a", "2")}.__contains__).newcomers == ()
    assert after_other_change(made, then, {ModelId("a", "1")}.__contains__).newcomers == ()
    assert after_other_change(made, then, lambda _: True) == made
    assert after_other_change(replace(made, links=()), then, lambda _: True).newcomers == ()
    beside = link(record(Link("b")), Link("a"))
    assert after_other_change(replace(beside, links=(Link("a"),)), current, lambda _: True).newcomers == ()
    unborn = replace(beside, links=(Link("a"), Link("none")))
    assert after_other_change(unborn, current, lambda _: True).newcomers == (), "what has not come up is no comparison"


def test_one_that_is_through_is_as_all_others() -> None:
    made = link(record(Link("b")), Link("a"))
    assert through(made, made.newcomers[0], ENDED) == replace(made, newcomers=(), ended_ramps=(ENDED,))


def test_of_each_linked_model_the_last_ramp_that_ended_is_kept() -> None:
    known = tuple(replace(ENDED, model=model) for model in ("a", "b", "gone"))
    made = link(replace(record(Link("b")), ended_ramps=known), Link("a"))
    later = replace(ENDED, version="2")
    assert through(made, made.newcomers[0], later).ended_ramps == (known[1], later)


def test_an_ended_ramp_is_shown_while_its_version_answers() -> None:
    versions = {ModelId("a", version): deployed("a", version, 50.0) for version in ("1", "2")}
    made = replace(record(Link("a")), ended_ramps=(ENDED,))
    assert ended_ramps(made, versions, current) == (ENDED,)
    # Beside the newcomer that comes next it goes on answering.
    following = promote(made, "2", "1")
    assert following.newcomers and ended_ramps(following, versions, {"a": "2"}.get) == (ENDED,)
    rolled_back = replace(made, ended_ramps=(replace(ENDED, version="2"),))
    for silent in (rolled_back, replace(made, links=(Link("a", shadow=True),)), replace(made, links=())):
        assert ended_ramps(silent, versions, current) == ()
    assert ended_ramps(made, {}, current) == (), "its version was deleted"
    again = {ModelId("a", "1"): deployed("a", "1", 150.0)}
    assert ended_ramps(made, again, current) == (), "what has its name now was deployed later"
    assert ended_ramps(replace(made, newcomers=(Newcomer(3, "a", "1"),)), versions, current) == ()


def test_what_is_ramped_or_was_stopped_is_not_rolled_back_to() -> None:
    model, plain = ModelRecord("a", current="2", previous="1"), record(Link("a"))
    ramped = promote(plain, "2", "1")
    assert proven([plain], model) == "2"
    assert proven([plain, ramped], model) == "1", "one application that still ramps it is enough"
    assert proven([stopped(ramped, ramped.newcomers[0], "it lost more")], model) == "1"
    assert proven([through(ramped, ramped.newcomers[0], ENDED)], model) == "2"
    assert proven([ramped], ModelRecord("b", current="2")) == "2", "that of another model says nothing"
    assert proven([link(plain, Link("a", "2"), Link("a"))], model) == "2", "nor does a link: others have it already"
    assert proven([], ModelRecord("a")) is None
    # A newcomer may be compared with an older version than the previous one, or, beside other models, with none.
    third = promote(ramped, "3", "2")
    assert proven([third], ModelRecord("a", current="3", previous="2")) == "1"
    beside = promote(record(Link("b"), Link("a")), "2", None)
    assert proven([beside], ModelRecord("a", current="2", previous="1")) == "1"


@pytest.mark.parametrize("promoted", [False, True])
def test_of_a_model_with_several_links_only_the_newcomers_goes_back(promoted: bool) -> None:
    newcomer = Newcomer(1, "a", "2", "1", promoted=promoted)
    links = (Link("a"), Link("a", "3"), Link("a", "2", shadow=True), Link("b"), Link("b", "2"))
    left = stopped(replace(record(*links), newcomers=(newcomer,)), newcomer, "it lost more").links
    assert left == ((Link("a") if promoted else Link("a", "1")), *links[1:])


WEIGHTED = record(Link("a"), Link("b"), policy="weighted")
EQUAL = replace(record(Link("a")), selection=Selection("ensemble", {"weighting": "equal"}))
UNGUARDED = replace(record(Link("a"), policy="single"), selection=Selection("single", max_loss_increase=None))


UNRAMPED = [record(Link("a"), ramp=None), record(Link("a"), policy="mine:Mine", ramp=None)]


@pytest.mark.parametrize("before", [record(Link("a"), policy="single"), WEIGHTED, EQUAL, *UNRAMPED])
def test_where_nothing_is_ramped_a_deployed_version_is_watched(before: ApplicationRecord) -> None:
    made = promote(before, "2", "1")
    assert made.watched == (Newcomer(1, "a", "2", "1", promoted=True),) and (made.newcomers, made.ramps) == ((), 1)
    assert compared_with([made]) == {ModelId("a", "1")}, "what it is compared with goes on running"
    assert promote(before, "2", "1", is_new=False).watched == (), "an operator wants it to answer"
    assert proven([made], ModelRecord("a", current="2", previous="1")) == "2", "it answers all queries already"
    third = promote(made, "3", "2")
    assert [(one.version, one.before) for one in third.watched] == [("3", "2")]
    assert unwatched(made, made.watched[0]).watched == ()


@pytest.mark.parametrize("before", [record(Link("a")), UNGUARDED, record(Link("a"), policy="mine:Mine")])
def test_what_is_ramped_or_not_guarded_is_not_watched(before: ApplicationRecord) -> None:
    assert promote(before, "2", "1").watched == ()


def test_a_link_is_watched_where_its_version_may_answer() -> None:
    old = Link("a", "1")
    changed = link(record(old, policy="single"), Link("a", "2"), old)
    assert changed.watched == (Newcomer(1, "a", "2", "1"),)
    assert stopped(changed, changed.watched[0], "it fails").links == (old,)
    assert link(record(Link("b"), policy="weighted"), Link("a")).watched == (Newcomer(1, "a", "1"),)
    assert link(record(Link("b"), policy="single"), Link("a")).watched == (), "single asks no link that is added"
    assert link(record(Link("b"), ramp=None), Link("a")).watched == (), "a policy that learns does not ask it by chance"


def test_a_watched_version_that_is_stopped_is_told_of_as_any_other() -> None:
    made = promote(record(Link("a"), policy="single"), "2", "1")
    bad = stopped(made, made.watched[0], "it fails")
    assert bad.watched == () and bad.newcomers == (replace(made.watched[0], stopped="it fails"),)
    exists = {ModelId("a", version) for version in "123"}.__contains__
    assert after_other_change(bad, current, exists) == bad
    assert promote(bad, "3", "1").newcomers == ()


def test_a_watch_ends_with_what_it_is_about() -> None:
    made = promote(record(Link("a"), policy="single"), "2", "1")

    def then(model: str) -> str | None:
        return "2" if model == "a" else current(model)

    assert after_other_change(made, then, lambda _: True) == made
    for version in ("1", "2"):
        assert after_other_change(made, then, lambda id_, gone=version: id_.version != gone).watched == ()  # type: ignore[misc]
    assert after_other_change(replace(made, links=()), then, lambda _: True).watched == ()
    assert after_other_change(replace(made, selection=Selection("thompson")), then, lambda _: True).watched == ()
