"""Whatever body the management API gets, it is refused with a 4xx, or what it makes is stored and served."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from clipper.settings.application import Selection
from clipper.supervisor.reconciler.servable import MAX_DEPTH
from clipper.supervisor.registry.records import ApplicationRecord
from tests.example_counts import share_of
from tests.supervisor.live_server import APP, Server, answering, with_application
from tests.waiting import until

# The worst of each kind that JSON has.
INTEGERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**20, 10**400]
FLOATS = [0.0, -0.0, 5e-324, 1e-300, 0.5, 1e15, 1e16, 1e300, 1.7976931348623157e308, -1e300]
TEXTS = [
    "",
    " ",
    "a",
    "A",
    "x" * 64,
    "x" * 5000,
    "\0",
    "\n",
    "é",
    "\U0001f600",
    "..",
    "/",
    "../../x",
    "m:1",
    "a:b:c",
    ":",
    "none",
]
DEEP: Any = json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
SCALARS = st.sampled_from([*INTEGERS, *FLOATS, *TEXTS, None, True, False])
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from(TEXTS), SCALARS, max_size=2), st.just(DEEP)
)
# As a client may write it, and no encoder does.
RAW = [
    "NaN",
    "Infinity",
    "1e999",
    "-1e999",
    '"\\ud800"',
    "[" * 2000,
    '"' + "\\u0000" * 3 + '"',
    "1" * 5000,
    "{}{}",
    "\xff",
]

POLICIES = st.one_of(
    VALUES,
    st.sampled_from(["exp3", "exp4", "ensemble", "weighted", "thompson", "ucb1", "epsilon_greedy", "subprocess:Popen"]),
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["exp3", "ensemble", "weighted", "thompson", "ucb1", "nothing", "os:system"]),
            "parameters": st.dictionaries(
                st.sampled_from(["eta", "gamma", "classes", "tolerance", "answer", "weights", "prior", "exploration"]),
                st.one_of(SCALARS, st.dictionaries(st.just("m"), SCALARS)),
                max_size=2,
            ),
        }
    ),
)
LOSSES = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["absolute", "squared", "log", "zero_one"]),
            "parameters": st.dictionaries(st.sampled_from(["range", "floor"]), SCALARS, max_size=1),
        }
    ),
)
# Values that may be, up to the ends of what may.
LEAVES = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
JSON = st.recursive(LEAVES | st.floats(allow_nan=False, allow_infinity=False), st.lists)
POSITIVE = st.floats(0, 1e300, exclude_min=True)
MADE = st.one_of(
    st.builds(lambda eta: {"name": "exp3", "parameters": {"eta": eta}}, st.floats(0, 1, exclude_min=True)),
    st.builds(lambda weight: {"name": "weighted", "parameters": {"weights": {"m": weight}}}, POSITIVE),
    st.builds(lambda prior: {"name": "thompson", "parameters": {"prior": prior}}, st.floats(0, 1000, exclude_min=True)),
    st.builds(lambda classes: {"name": "ensemble", "parameters": {"classes": classes}}, st.floats(2, 1e300)),
)


def either(worst: Any, sensible: Any) -> Any:
    """Half of each: a choice among all of their branches would hardly ever be a sensible one."""
    return st.booleans().flatmap(lambda is_sensible: sensible if is_sensible else worst)


FIELDS = {
    "slo_ms": either(VALUES, st.floats(0, 600_000, exclude_min=True)),
    "default_output": either(VALUES, JSON),
    "policy": either(POLICIES, MADE),
    "loss": either(LOSSES, st.builds(lambda width: {"name": "squared", "parameters": {"range": width}}, POSITIVE)),
    "half_life": either(VALUES, st.integers(1, 10**9)),
    "prior_weight": either(VALUES, st.floats(0, 1e9)),
    "inherit": either(VALUES, st.floats(0, 1)),
    "confidence_threshold": either(VALUES, st.floats(0, 1)),
    "feedback_ttl_s": either(VALUES, st.floats(0, 604_800)),
    "confidence_from": either(VALUES, st.sampled_from(["agreement", "probabilities"])),
    "calibrate": either(VALUES, st.booleans()),
    "log_decisions": either(VALUES, st.floats(0, 1)),
    "log_inputs": either(VALUES, st.sampled_from(["off", "sampled"])),
    "redact": VALUES,
    "code": VALUES,
}
NEW = FIELDS | {
    "name": VALUES,
    "input_type": st.one_of(
        VALUES, st.sampled_from(["float64[9999999999]", "float64[*,*]", "uint8[0]", "bool[1,2,3,4,5,6,7,8,9]"])
    ),
    "links": st.one_of(
        VALUES, st.lists(st.fixed_dictionaries({"model": SCALARS}, optional={"version": SCALARS}), max_size=2)
    ),
}
DEPLOYED = (
    "artifact loader target version data input_type replicas python batching cache make_current start_timeout_s "
    "memory_bytes manager requirements needs cpus gpus resources placement sample framework output env secrets"
)
DEPLOYMENT = dict.fromkeys(DEPLOYED.split(), VALUES)

# All examples share one server, so that later ones have to bear the records of earlier ones.
many = settings(
    max_examples=share_of(150), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
few = settings(parent=many, max_examples=share_of(60))
numbers = itertools.count()


def picked(fields: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One of them mostly: one wrong value hides others."""
    names = st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=2, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen}))


def ask(server: Server, method: str, path: str, body: Any) -> int:
    answer = server.ask(method, path, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert answer.status_code < 500, f"{method} {path} {str(body)[:300]}: {answer.status_code} {answer.text[:500]}"
    assert len(answer.text) < 20_000 or answer.is_success
    if currently_in_test_context():
        event(f"{method} {path}: {answer.status_code}")
    return answer.status_code


def assert_served(server: Server, application: str) -> None:
    shown = server.call("GET", f"/applications/{application}")
    assert [one["name"] for one in server.call("GET", "/applications") if one["name"] == application]
    assert server.call("GET", f"/applications/{application}/policy")["policy"] == shown["policy"]["name"]
    answer = server.predict(application, [1, 2])
    assert {"output", "error"} & answer.keys() and answer.get("error") != "internal_error", answer
    # An SLO may be too short for any machine.
    assert [text for text in server.call("GET", "/status")["problems"] if "than its SLO" not in text] == []


@many
@given(picked(NEW))
def test_a_new_application(shared: Server, fields: dict[str, Any]) -> None:
    body = {**APP, "name": f"new{next(numbers)}", **fields}
    if ask(shared, "POST", "/applications", body) < 400:
        assert_served(shared, body["name"])
        shared.call("DELETE", f"/applications/{body['name']}")


@many
@given(picked(FIELDS))
def test_a_changed_application(shared: Server, fields: dict[str, Any]) -> None:
    if ask(shared, "PATCH", "/applications/app", fields) < 400:
        assert_served(shared, "app")


@few
@given(picked(DEPLOYMENT))
def test_a_deployment(shared: Server, fields: dict[str, Any]) -> None:
    digest = shared.upload("raise SystemExit('not to be started')")
    good = {"artifact": digest, "loader": "import", "target": "my_model:predict", "start_timeout_s": 5}
    if ask(shared, "POST", "/models/other/versions", {**good, **fields}) < 400:
        shared.call("GET", "/models/other")
        shared.call("DELETE", "/models/other")


@few
@given(either(VALUES, st.sampled_from(["1", "a", 1, None])), SCALARS)
def test_links_scales_rollbacks_and_tokens(shared: Server, value: Any, other: Any) -> None:
    for method, path, body in (
        ("PUT", "/applications/app/links/m", {"version": value}),
        ("PUT", "/applications/app/links/m", {"shadow": value, "version": other}),
        ("POST", "/models/m/rollback", {"version": value}),
        ("POST", "/models/m/scale", {"replicas": {"min": value, "max": other}}),
        ("POST", "/models/m/scale", {"replicas": 10**400 if value == 1 else -1, "version": other}),
        ("POST", "/tokens", {"name": value, "role": other}),
        ("POST", "/tokens", {"name": value}),
    ):
        if ask(shared, method, path, body) < 400 and path == "/tokens":
            shared.call("DELETE", f"/tokens/{value}")
    shared.call("PUT", "/applications/app/links/m", {})


@pytest.mark.parametrize("text", RAW)
def test_what_no_encoder_writes(shared: Server, text: str) -> None:
    for body in (
        text,
        f'{{"slo_ms": {text}}}',
        f'{{"default_output": {text}}}',
        f'{{"policy": {{"name": "x", "parameters": {{"a": {text}}}}}}}',
    ):
        assert ask(shared, "PATCH", "/applications/app", body.encode("latin-1")) in (200, 400)
    assert_served(shared, "app")


@pytest.mark.long
def test_what_an_older_clipper_stored_and_nobody_can_serve_is_left_out(server: Server) -> None:
    with_application(server)
    assert server.stop() == 0
    bad = ApplicationRecord("bad", "float64[2]", 20.0, selection=Selection(half_life=10**20), id="bad#1")
    with closing(sqlite3.connect(server.home / "registry.sqlite3")) as registry, registry:
        registry.execute("INSERT INTO applications VALUES ('bad', ?)", (msgspec.json.encode(bad).decode(),))
    server.start()
    (problem,) = until(lambda: [one for one in server.call("GET", "/status")["problems"] if "'bad'" in one])
    assert "half_life" in problem and "delete it" in problem
    until(lambda: len(server.call("GET", "/status")["problems"]) == 1)
    assert server.predict("app", [1, 2])["output"] == "one"
    # Everything else can still be changed, and the bad application can be mended.
    server.deploy("m", answering("two"), input_type="float64[2]")
    assert server.predict("app", [1, 2])["output"] == "two"
    server.call("PATCH", "/applications/bad", {"half_life": 5})
    assert server.call("GET", "/status")["problems"] == []
    assert server.predict("bad", [1, 2])["error"] == "no_replica"


@pytest.fixture(autouse=True)
def as_it_was(shared: Server) -> Iterator[None]:
    yield
    shared.call(
        "PATCH",
        "/applications/app",
        {"slo_ms": 20_000, "policy": "single", "loss": "zero_one", "half_life": 1000, "confidence_threshold": None},
    )
