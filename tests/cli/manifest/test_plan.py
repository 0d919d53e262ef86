"""The plan changes a server to match a file, and leaves the rest alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.api.schemas import Key
from clipper.cli.manifest.manifest import Manifest, read_manifest
from clipper.cli.manifest.plan import Packed, fingerprint, plan
from clipper.cli.manifest.steps import (
    Actual,
    ActualModel,
    ActualVersion,
    Change,
    ChangeApplication,
    CreateApplication,
    Delete,
    Deploy,
    MakeCurrent,
    Plan,
    PutKey,
    Scale,
    Step,
)
from tests.cli.manifest.pretend_server import PretendServer, nothing

ENVIRONMENT = {"WEB": "w" * 40, "NEW": "n" * 40}


def read(text: str) -> Manifest:
    wanted, faults = read_manifest(text.encode(), Path("/f"), ENVIRONMENT)
    assert faults == []
    return wanted


def pack(wanted: Manifest) -> Packed:
    """Each model's path stands for its content."""
    versions = {
        version.path: {
            "artifact": f"sha-of-{version.source['model']}",
            "loader": "file",
            "target": version.source["model"],
            "manager": "local",
        }
        for model in wanted.models or ()
        for version in model.versions
    }
    codes = {one.name: "sha-of-code" for one in wanted.applications or () if ":" in one.settings.get("policy", "")}
    return Packed(versions, codes)


class World:
    """A server, and the files that are applied to it."""

    def __init__(self, text: str) -> None:
        self.server = PretendServer(pack(read(text)))
        self.server.run(self.plan(text))

    def plan(self, text: str, *, prune: bool = False) -> Plan:
        wanted = read(text)
        return plan(wanted, pack(wanted), self.server.actual, prune=prune)

    def apply(self, text: str, *, prune: bool = False) -> Plan:
        found = self.plan(text, prune=prune)
        self.server._packed = pack(read(text))
        self.server.run(found)
        return found


BASE = """
models:
  m: {model: a, replicas: 2, max_batch: 16}
applications:
  app: {links: [m], slo_ms: 50, default_output: 0, policy: exp3, policy_parameters: {eta: 0.1}}
keys:
  web: {from_env: WEB, applications: [app]}
"""


def kinds(found: Plan) -> list[type[Step]]:
    return [type(step) for step in found.steps]


def changes(found: Plan) -> list[str]:
    return [str(change) for step in found.steps for change in step.changes]


def test_an_empty_server_gets_all_of_it_in_a_safe_order() -> None:
    found = World("models: {}").plan(BASE)
    assert kinds(found) == [Deploy, CreateApplication, PutKey]
    assert [step.needs for step in found.steps] == [frozenset(), {"m"}, frozenset()]


def test_the_same_file_again_changes_nothing() -> None:
    assert nothing(World(BASE).plan(BASE, prune=True))


CHANGED: list[tuple[str, str, list[type[Step]], list[str]]] = [
    ("model: a", "model: b", [Deploy], ["artifact: sha-of-a → sha-of-b", "target: a → b"]),
    ("max_batch: 16", "max_batch: 32", [Deploy], ["max_batch: 16 → 32"]),
    ("max_batch: 16", "max_batch: 16, manager: ray", [Deploy], ["manager: local → ray"]),
    ("max_batch: 16", "max_batch: 16, manager: local", [], []),
    ("max_batch: 16", "max_batch: 16, manager: null", [], []),
    ("max_batch: 16", "max_batch: 16, resources: {ssd: 1}", [Deploy], ['resources: {} → {"ssd":1.0}']),
    (
        "max_batch: 16",
        "max_batch: 16, env: {A: 1}, secrets: [KEY]",
        [Deploy],
        ['env: {} → {"A":"sha256:6b86b273"}', 'secrets: [] → ["KEY"]'],
    ),
    (", max_batch: 16", "", [Deploy], ["max_batch: 16 → 1024"]),
    ("replicas: 2", "replicas: 1..3", [Scale], ["replicas: 2 → 1..3"]),
    ("replicas: 2", "input_type: ' float64[ 4 ]', replicas: 2", [Deploy], ["input_type: none → float64[4]"]),
    ("slo_ms: 50", "input_type: , slo_ms: 50.0", [], []),
    ("max_batch: 16", "max_batch: 16, cpus: , sample: null, version: null, data: null", [], []),
    ("slo_ms: 50", "slo_ms: 20", [ChangeApplication], ["slo_ms: 50.0 → 20.0"]),
    ("slo_ms: 50, ", "", [ChangeApplication], ["slo_ms: 50.0 → 100.0"]),
    ("default_output: 0", "default_output: null", [ChangeApplication], ["default_output: 0 → none"]),
    ("default_output: 0", "default_output: 0.0", [], []),
    ("default_output: 0", "default_output: false", [ChangeApplication], ["default_output: 0 → false"]),
    ("eta: 0.1", "eta: 0.2", [ChangeApplication], ['policy_parameters: {"eta":0.1} → {"eta":0.2}']),
    ("links: [m]", "links: [{model: m, cost: 2}]", [ChangeApplication], ['links: ["m"] → ["m (cost 2)"]']),
    ("links: [m]", "links: ['m:1']", [ChangeApplication], ['links: ["m"] → ["m:1"]']),
    ("from_env: WEB", "from_env: NEW", [PutKey], ["key: the old one → the new one"]),
    ("applications: [app]", "max_in_flight: 3", [PutKey], ['applications: ["app"] → []', "max_in_flight: none → 3"]),
]


@pytest.mark.parametrize(("old", "new", "steps", "shown"), CHANGED, ids=[f"{old}>{new}" for old, new, *_ in CHANGED])
def test_a_change_of_the_file_is_what_is_done(old: str, new: str, steps: list[type[Step]], shown: list[str]) -> None:
    world, changed = World(BASE), BASE.replace(old, new)
    found = world.apply(changed)
    assert (kinds(found), changes(found)) == (steps, shown)
    assert nothing(world.plan(changed, prune=True))


def test_a_new_policy_takes_its_half_life_along() -> None:
    found = World(BASE).plan(BASE.replace("policy: exp3, policy_parameters: {eta: 0.1}", "policy: ucb1"))
    (step,) = found.steps
    assert isinstance(step, ChangeApplication)
    assert step.settings == {"policy": "ucb1", "policy_parameters": {}, "half_life": 500, "features": None}


def test_the_way_back_makes_the_old_version_current_without_a_deployment() -> None:
    world = World(BASE)
    world.apply(BASE.replace("model: a", "model: b"))
    found = world.apply(BASE)
    (step,) = found.steps
    assert isinstance(step, MakeCurrent) and (step.version, step.changes) == ("1", (Change("current", "2", "1"),))
    assert nothing(world.plan(BASE))


def with_version(actual: Actual, name: str, **fields: Any) -> Actual:
    """The server's model m with another state of a version, or another current one."""
    found = actual.models["m"]
    version = replace_version(found.versions[name], fields)
    model = ActualModel(fields.get("current", found.current), {**found.versions, name: version})
    return Actual({**actual.models, "m": model}, actual.applications, actual.keys)


def replace_version(version: ActualVersion, fields: Mapping[str, Any]) -> ActualVersion:
    return ActualVersion(fields.get("state", version.state), version.deployment, fields.get("stopped"))


def test_an_equal_version_that_still_starts_is_waited_for() -> None:
    wanted = read(BASE)
    starting = with_version(World(BASE).server.actual, "1", state="starting", current=None)
    assert kinds(plan(wanted, pack(wanted), starting)) == [MakeCurrent]


def test_an_equal_version_that_failed_is_deployed_again() -> None:
    wanted = read(BASE)
    failed = with_version(World(BASE).server.actual, "1", state="failed", current=None)
    assert kinds(plan(wanted, pack(wanted), failed)) == [Deploy]


def test_a_file_does_not_go_back_to_a_version_that_was_stopped() -> None:
    wanted, there = read(BASE), World(BASE).server.actual
    other = with_version(there, "1", stopped="application 'app': it lost more", current=None)
    found = plan(wanted, pack(wanted), other)
    (obstacle,) = found.obstacles
    assert "it lost more" in obstacle.reason and "rollback m --to 1" in obstacle.reason
    assert not any(isinstance(step, MakeCurrent) for step in found.steps)
    chosen = with_version(there, "1", stopped="application 'app': it lost more")
    assert not plan(wanted, pack(wanted), chosen).obstacles, "an operator has chosen it nevertheless"


NAMED = """
models:
  m:
    current: new
    versions:
      old: {model: a}
      new: {model: b}
applications:
  app: {links: [m, 'm:old']}
"""


def test_several_versions_are_deployed_and_the_current_one_last() -> None:
    found = World("models: {}").plan(NAMED)
    deployed = [step for step in found.steps if isinstance(step, Deploy)]
    assert [(step.version.name, step.make_current) for step in deployed] == [("old", False), ("new", True)]
    world = World(NAMED)
    assert nothing(world.plan(NAMED, prune=True))
    assert kinds(world.apply(NAMED.replace("current: new", "current: old"))) == [MakeCurrent]


def test_a_version_with_a_name_does_not_change() -> None:
    found = World(NAMED).plan(NAMED.replace("model: b", "model: c"))
    assert found.steps == ()
    (obstacle,) = found.obstacles
    assert (obstacle.subject, obstacle.model) == ("model m:new", "m")
    assert "artifact: sha-of-b → sha-of-c" in obstacle.reason and "give it a new name" in obstacle.reason


def test_only_prune_deletes_and_only_in_sections_that_the_file_has() -> None:
    world = World(BASE)
    assert world.plan("models: {}").unnamed == ("model m",)
    assert kinds(world.plan("models: {}")) == []
    assert kinds(world.plan("server: {}", prune=True)) == []
    found = world.plan("applications: {}\nmodels: {}\nkeys: {}", prune=True)
    deletions = [step for step in found.steps if isinstance(step, Delete)]
    assert [(step.kind, step.name) for step in deletions] == [("key", "web"), ("application", "app"), ("model", "m")]
    assert found.unnamed == ()


def test_a_running_version_without_a_name_is_pruned_after_its_links() -> None:
    world = World(NAMED)
    without = NAMED.replace("      old: {model: a}\n", "").replace(", 'm:old'", "")
    assert kinds(world.plan(without)) == [ChangeApplication]
    assert kinds(world.apply(without, prune=True)) == [ChangeApplication, Delete]
    assert nothing(world.plan(without, prune=True))


@pytest.mark.parametrize(
    ("text", "prune", "expected"),
    [
        ("applications: {app: {links: [x]}}", False, "it links model x, which neither the file nor the server has"),
        (
            "models: {}\napplications: {app: {links: [m], default_output: 0}}",
            True,
            "the file does not name and --prune",
        ),
        ("applications: {app: {links: [m], default_output: 0, input_type: string}}", False, "cannot become string"),
        ("applications: {app: {links: [m]}}", False, "its default_output is 0 and cannot be removed"),
    ],
)
def test_what_no_call_can_do_is_an_obstacle(text: str, prune: bool, expected: str) -> None:
    found = World(BASE).plan(text, prune=prune)
    assert expected in found.obstacles[0].reason
    assert not any(isinstance(step, ChangeApplication) for step in found.steps)


def test_an_application_may_link_a_model_that_only_the_server_has() -> None:
    found = World(BASE).plan("applications: {other: {links: [m]}}")
    assert kinds(found) == [CreateApplication] and found.obstacles == ()


def test_own_code_that_changed_is_sent_with_its_policy() -> None:
    text = "models: {m: {model: a}}\napplications: {app: {links: [m], policy: 'own:Best'}}"
    world, wanted = World(text), read(text)
    assert nothing(world.plan(text))
    (step,) = plan(wanted, Packed(pack(wanted).versions, {"app": "sha-of-other"}), world.server.actual).steps
    assert isinstance(step, ChangeApplication)
    assert step.settings == {"policy": "own:Best", "policy_parameters": {}}
    assert [change.name for change in step.changes] == ["code"]


def test_a_key_is_known_by_what_the_server_tells_of_it() -> None:
    assert fingerprint("w" * 40) == fingerprint(ENVIRONMENT["WEB"]) != fingerprint("n" * 40)
    key = Key("web", 0.0, (), None, None, fingerprint=None)
    (step,) = plan(read("keys: {web: {from_env: WEB}}"), Packed({}, {}), Actual(keys={"web": key})).steps
    assert [str(change) for change in step.changes] == ["key: not shown to this token → the new one"]


VERSIONS = st.fixed_dictionaries(
    {"model": st.sampled_from("abc")},
    optional={"cpus": st.sampled_from([1, 2.0, None]), "replicas": st.sampled_from([1, 2, "1..3"])},
)
LINKED = ["m", "n", "m:1", "m:2"]
APPLICATIONS = st.fixed_dictionaries(
    {
        "links": st.lists(st.sampled_from(LINKED), min_size=1, max_size=3, unique=True),
        "default_output": st.sampled_from([0, None, "cat"]),
    },
    optional={
        "slo_ms": st.sampled_from([10, 20.5]),
        "policy": st.sampled_from(["exp3", "ucb1", "own:Best"]),
        "half_life": st.sampled_from([None, 7]),
        "ramp": st.sampled_from([None, 0.1]),
    },
)
FILES = st.fixed_dictionaries(
    {
        # The contents of a named version never change here, since a version that changes is an obstacle.
        "models": st.fixed_dictionaries(
            {
                "m": st.sampled_from(["1", "2"]).map(
                    lambda current: {"current": current, "versions": {"1": {"model": "a"}, "2": {"model": "b"}}}
                ),
                "n": VERSIONS,
            }
        ),
        "applications": st.dictionaries(st.sampled_from(["p", "q"]), APPLICATIONS),
    },
    optional={"keys": st.dictionaries(st.sampled_from(["web"]), st.sampled_from([{"from_env": "WEB"}]))},
)


@given(st.lists(FILES, min_size=1, max_size=4), st.booleans())
def test_a_file_that_is_applied_changes_nothing_the_second_time(files: list[Any], prune: bool) -> None:
    world = World("models: {}")
    for file in files:
        text = repr(file).replace("None", "null")
        assert world.apply(text, prune=prune).obstacles == ()
        assert nothing(world.plan(text, prune=prune))


PIPELINE = """
models:
  m: {model: a}
  n: {model: b}
applications:
  desk:
    input_type: float64[4]
    slo_ms: 300
    steps:
      first: {links: [m], default_output: [0]}
      second: {links: [n], slo_ms: 50, input: first, when: first.confidence > 0.5}
      third: {application: shared, input: second or first}
  shared: {links: [m]}
"""


def test_steps_are_made_before_their_pipeline_and_deleted_after_it() -> None:
    found = World("models: {}").plan(PIPELINE)
    made = [step.subject for step in found.steps if isinstance(step, CreateApplication)]
    assert made == [f"application {name}" for name in ("desk.first", "desk.second", "shared", "desk")]
    world = World(PIPELINE)
    assert nothing(world.plan(PIPELINE, prune=True))
    assert world.server.actual.applications["desk.first"].slo_ms == 300
    assert world.server.actual.applications["desk.second"].slo_ms == 50
    gone = world.plan("applications: {}", prune=True)
    assert next(step.subject for step in gone.steps) == "application desk"


def test_a_changed_step_changes_the_pipeline_or_its_own_application() -> None:
    found = World(PIPELINE).plan(PIPELINE.replace("> 0.5", "> 0.75"))
    assert [step.subject for step in found.steps] == ["application desk"]
    found = World(PIPELINE).plan(PIPELINE.replace("slo_ms: 50", "slo_ms: 60"))
    assert [(step.subject, str(step.changes[0])) for step in found.steps] == [
        ("application desk.second", "slo_ms: 50.0 → 60.0")
    ]


def test_a_step_that_nothing_can_answer_is_an_obstacle() -> None:
    text = PIPELINE.replace("  shared: {links: [m]}\n", "")
    found = World("models: {}").plan(text)
    assert [one.reason for one in found.obstacles] == [
        "a step asks application shared, which neither the file nor the server has"
    ]
    pruned = World(PIPELINE).plan(text, prune=True)
    assert [one.reason for one in pruned.obstacles] == [
        "a step asks application shared, which the file does not name and --prune removes"
    ]
