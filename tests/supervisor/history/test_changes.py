"""The events of changes of the registry."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.history.changes import events_of
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.registry.records import ApplicationRecord, KeyRecord, ModelRecord, TokenRecord, VersionRecord
from clipper.supervisor.registry.store import (
    Change,
    Delete,
    ForgetLater,
    Forgotten,
    Put,
)
from clipper.values.types import Caller, ModelId

SPEC = VersionSpec(artifact="a" * 64, loader="file", target="model.joblib")
ONE = VersionRecord("m", "1", SPEC, Batching(), True, 1, 1.0, state="ready")
TWO = VersionRecord("m", "2", SPEC, Batching(), True, 3, 2.0, is_new=True, promotion=1)
APP = ApplicationRecord("app", "float64[2]", 20.0, links=(Link("m"),))


@dataclass
class Before:
    applications: dict[str, ApplicationRecord] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    versions: dict[ModelId, VersionRecord] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    tokens: dict[str, TokenRecord] = field(default_factory=dict)


def before(*records: Any) -> Before:
    found = Before()
    for one in records:
        match one:
            case ApplicationRecord():
                found.applications[one.name] = one
            case ModelRecord():
                found.models[one.name] = one
            case VersionRecord():
                found.versions[one.id] = one
            case KeyRecord():
                found.keys[one.name] = one
    return found


def told(known: Before, *changes: Change, why: str = "") -> list[tuple[str, str, str | None, str]]:
    events = events_of(known, changes, why)
    assert len({one.subject for one in events}) <= 1
    return [(one.kind, one.message, one.version, one.level) for one in events]


def test_a_deployment_from_its_request_to_current() -> None:
    known = before(ModelRecord("m", "1"), ONE)
    (event,) = events_of(known, [Put(TWO)])
    assert event == NewEvent("deployment", "model m", "version 2 is deployed, with 3 replicas", "2")
    known = before(ModelRecord("m", "1"), ONE, TWO)
    promoted = replace(TWO, state="ready", is_new=False, promotion=None)
    assert told(known, Put(promoted), Put(ModelRecord("m", "2", "1"))) == [
        ("deployment", "version 2 is ready", "2", "info"),
        ("deployment", "version 2 is current, in place of version 1", "2", "info"),
    ]


def test_a_deployment_from_an_address_says_which_and_which_was_before() -> None:
    def of(record: VersionRecord, source: str) -> VersionRecord:
        return replace(record, spec=replace(record.spec, source=source))

    new = of(TWO, "models:/m/2#sha256=b")
    text = "version 2 is deployed, with 3 replicas, from models:/m/2#sha256=b"
    assert told(before(ModelRecord("m", "1"), ONE), Put(new))[0][1] == text
    known = before(ModelRecord("m", "1"), of(ONE, "models:/m/1#sha256=a"))
    assert told(known, Put(new))[0][1] == f"{text}, after models:/m/1#sha256=a"


def test_a_version_becomes_current_in_the_name_of_who_asked_for_it() -> None:
    asked = replace(TWO, promoted_by=Caller("ci", "10.0.0.7"))
    known = before(ModelRecord("m", "1"), ONE, asked)
    assert [one.by for one in events_of(known, [Put(ModelRecord("m", "2", "1"))])] == [asked.promoted_by]
    back = replace(ONE, promotion=2, promoted_by=Caller("eve"))
    known = before(ModelRecord("m", "2", "1"), back, TWO)
    assert [one.by for one in events_of(known, [Put(ModelRecord("m", "1"))])] == [back.promoted_by]
    # The guardrail goes back to it without a request.
    known = before(ModelRecord("m", "2", "1"), replace(back, promotion=None), TWO)
    assert [one.by for one in events_of(known, [Put(ModelRecord("m", "1"))])] == [None]


def test_the_first_version() -> None:
    assert told(before(), Put(ModelRecord("m")), Put(ONE)) == [
        ("deployment", "version 1 is deployed, with 1 replica", "1", "info")
    ]
    assert told(before(ModelRecord("m"), ONE), Put(ModelRecord("m", "1"))) == [
        ("deployment", "version 1 is current", "1", "info")
    ]


def test_a_version_that_fails_and_is_deployed_again() -> None:
    failed = replace(TWO, state="failed", last_error="ModuleNotFoundError: no module named 'left_pad'")
    assert told(before(TWO), Put(failed)) == [
        ("deployment", "version 2 has failed: ModuleNotFoundError: no module named 'left_pad'", "2", "error")
    ]
    assert told(before(failed), Put(replace(TWO, created_at=3.0))) == [
        ("deployment", "version 2 is deployed, with 3 replicas", "2", "info")
    ]
    late = replace(ONE, promotion=None, last_error="a worker cannot dial its replica")
    assert told(before(replace(ONE, promotion=4)), Put(late)) == [
        ("deployment", "version 1 did not become current: a worker cannot dial its replica", "1", "error")
    ]


def test_a_rollback() -> None:
    known = before(ModelRecord("m", "2", "1"), ONE, replace(TWO, state="ready", is_new=False))
    assert told(known, Put(ModelRecord("m", "1", "2"))) == [
        ("rollback", "the model is rolled back to version 1 from version 2", "1", "warning")
    ]
    assert told(known, Put(ModelRecord("m", "2"))) == []


def test_scaling_and_why() -> None:
    more = replace(ONE, replicas_wanted=3)
    assert told(before(ONE), Put(more), why="120 rows/s are more than 1 replica can answer") == [
        (
            "scaling",
            "version 1 gets 3 replicas in place of 1: 120 rows/s are more than 1 replica can answer",
            "1",
            "info",
        )
    ]
    ranged = replace(ONE, scaling=ReplicaRange(1, 4))
    assert told(before(ONE), Put(ranged)) == [
        ("scaling", "version 1 is scaled by load, from 1 to 4 replicas", "1", "info")
    ]
    assert told(before(ranged), Put(replace(ONE, replicas_wanted=2))) == [
        ("scaling", "version 1 is not scaled by load", "1", "info"),
        ("scaling", "version 1 gets 2 replicas in place of 1", "1", "info"),
    ]


def test_what_only_clipper_notes_is_no_event() -> None:
    noted = replace(ONE, input_type="float64[2]", warm_up_rows=4, warning="another numpy", state="sleeping")
    assert told(before(ONE), Put(noted), ForgetLater("app#1"), Forgotten("app#1")) == []
    assert told(before(noted), Put(replace(noted, state="starting"))) == []


def test_an_application_is_created_changed_and_deleted() -> None:
    assert told(before(), Put(APP)) == [("application", "the application is created: m, policy single", None, "info")]
    changed = replace(
        APP,
        slo_ms=30.0,
        default_output='"' + "x" * 100 + '"',
        links=(Link("m"), Link("n", "2")),
        selection=Selection("exp3", parameters={"gamma": 0.1}),
    )
    ((kind, message, _, _),) = told(before(APP), Put(changed))
    assert kind == "application"
    assert message == (
        "the application is changed: slo_ms 30.0 in place of 20.0; default_output " + f'"{"x" * 38}…'
        " in place of none; policy exp3 in place of single; parameters {'gamma': 0.1} in place of {}; "
        "links m, n:2 in place of m"
    )
    assert told(before(APP), Put(replace(APP, ramps=3))) == []
    assert told(before(APP), Put(replace(APP, ended_ramps=(EndedRamp("m", "2", 1.0, 9, 9, 0.0, 0.0),)))) == []
    assert told(before(APP), Delete(ApplicationRecord, "app"), ForgetLater("app#1")) == [
        ("application", "the application is deleted", None, "info")
    ]


def test_an_application_without_links() -> None:
    assert told(before(), Put(replace(APP, links=())))[0][1] == "the application is created: no model, policy single"
    assert told(before(APP), Put(replace(APP, links=())))[0][1] == (
        "the application is changed: links no model in place of m"
    )


def test_a_link_says_whether_it_answers() -> None:
    shadow = replace(APP, links=(Link("m"), Link("n", "2", shadow=True, cost=2.5)))
    created = told(before(), Put(shadow))[0][1]
    assert created == "the application is created: m, n:2 (shadow) (cost 2.5), policy single"
    answering = replace(APP, links=(Link("m"), Link("n", "2", cost=2.5)))
    assert told(before(shadow), Put(answering))[0][1] == (
        "the application is changed: links m, n:2 (cost 2.5) in place of m, n:2 (shadow) (cost 2.5)"
    )
    many = replace(APP, links=tuple(Link("m", str(number)) for number in range(20)))
    assert told(before(APP), Put(many))[0][1] == (
        "the application is changed: links m:0, m:1, m:2, m:3, m:4, m:5, m:6, m:7, 12 more in place of m"
    )


def test_a_watched_version_is_told_of_once_it_is_stopped() -> None:
    newcomer = Newcomer(7, "m", "2", before="1", promoted=True)
    watching = replace(APP, watched=(newcomer,), ramps=7)
    assert told(before(APP), Put(watching)) == told(before(watching), Put(APP)) == []
    stopped = replace(APP, newcomers=(replace(newcomer, stopped="it fails"),), ramps=7)
    assert told(before(watching), Put(stopped)) == [("guardrail", "m:2 is stopped: it fails", "2", "warning")]


def test_a_newcomer_from_its_ramp_to_the_guardrail() -> None:
    newcomer = Newcomer(7, "m", "2", before="1", promoted=True)
    ramped = replace(APP, newcomers=(newcomer,), ramps=7)
    begun = "m:2 is new to it, and gets a share of the queries until feedback has shown its worth"
    assert told(before(APP), Put(ramped)) == [("ramp", begun, "2", "info")]
    assert told(before(ramped), Put(APP), why="it is through: it lost less") == [
        ("ramp", "m:2 is not ramped any more: it is through: it lost less", "2", "info")
    ]
    stopped = replace(ramped, newcomers=(replace(newcomer, stopped="it lost more"),))
    assert told(before(ramped), Put(stopped)) == [("guardrail", "m:2 is stopped: it lost more", "2", "warning")]
    assert told(before(stopped), Put(stopped)) == told(before(stopped), Put(APP)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Put(KeyRecord("new", "digest", created_at=1.0)), ("key", "the key is made")),
        (Put(KeyRecord("web", "other", created_at=1.0)), ("key", "the key is replaced")),
        (
            Put(KeyRecord("web", "digest", ("app",), 7, created_at=1.0)),
            ("key", "the key is kept; applications ('app',) in place of (); max_in_flight 7 in place of none"),
        ),
        (Delete(KeyRecord, "web"), ("key", "the key is revoked")),
        (Put(TokenRecord("ci", "read", "digest", 1.0)), ("token", "the token is made, with the role read")),
        (Delete(TokenRecord, "ci"), ("token", "the token, with the role admin, is revoked")),
        (Delete(ModelRecord, "m"), ("deployment", "the model is deleted, with all its versions")),
        (Delete(VersionRecord, "m:1"), ("deployment", "version 1 is deleted")),
    ],
)
def test_keys_tokens_and_removals(change: Change, expected: tuple[str, str]) -> None:
    known = before(KeyRecord("web", "digest", created_at=1.0))
    known.tokens["ci"] = TokenRecord("ci", "admin", "digest", 1.0)
    (event,) = events_of(known, [change])
    assert (event.kind, event.message) == expected
    assert "digest" not in repr(event)
    assert event.subject.split()[0] in ("key", "token", "model")
