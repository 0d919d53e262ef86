"""The file is read, and errors in it are named, by the settings' own names, types and ranges."""

from pathlib import Path

import pytest

from clipper.cli.manifest.document import Place, lines_of
from clipper.cli.manifest.manifest import Manifest, place_of, read_manifest
from clipper.settings.application import Link
from clipper.settings.pipeline import Step
from clipper.settings.replicas import ReplicaRange
from clipper.values.records import parse_type

FOLDER = Path("/where/the/file/is")
KEY = "k" * 40


def read(text: str, **environment: str) -> Manifest:
    wanted, faults = read_manifest(text.encode(), FOLDER, environment)
    assert list(lines_of(faults)) == []
    return wanted


def faults_of(text: str, **environment: str) -> list[str]:
    return list(lines_of(read_manifest(text.encode(), FOLDER, environment)[1]))


def test_a_file_with_every_section() -> None:
    wanted = read(
        """
server: {workers: 2, cache_bytes: 512m, grpc_port: off, tls_cert: tls/cert.pem, allowed_host: [a, b]}
models:
  digits: {model: digits.joblib, replicas: 1..4, python: 3.10, memory_bytes: 2g, cpus: 1.5, sample: [1, 2]}
applications:
  digits:
    links: [digits, "digits:2", {model: forest, shadow: true, cost: auto}, {model: forest, version: 1, cost: 2}]
    policy: exp3
    policy_parameters: {eta: 0.05}
    default_output: {a: [1, null]}
    half_life: none
    max_in_flight: null
keys:
  web: {from_env: WEB_KEY, applications: [digits, digits], max_per_second: 10}
""",
        WEB_KEY=KEY,
    )
    assert wanted.server == {
        "workers": 2,
        "cache_bytes": 512 * 1024**2,
        "grpc_port": "off",
        "tls_cert": FOLDER / "tls/cert.pem",
        "allowed_host": ("a", "b"),
    }
    assert wanted.models is not None and wanted.applications is not None and wanted.keys is not None
    (version,) = wanted.models[0].versions
    assert (version.name, version.source, version.place) == (None, {"model": "digits.joblib"}, Place(4, 3))
    assert version.settings == {
        "replicas": ReplicaRange(1, 4),
        "python": "3.10",
        "memory_bytes": 2 * 1024**3,
        "cpus": 1.5,
        "sample": [1, 2],
    }
    (application,) = wanted.applications
    assert application.links == (
        Link("digits"),
        Link("digits", "2"),
        Link("forest", shadow=True, cost="auto"),
        Link("forest", "1", cost=2.0),
    )
    assert application.settings == {
        "policy": "exp3",
        "policy_parameters": {"eta": 0.05},
        "default_output": {"a": [1, None]},
        "half_life": None,
        "max_in_flight": None,
    }
    (key,) = wanted.keys
    assert (key.key, key.applications, key.limits) == (KEY, ("digits",), {"max_per_second": 10.0})


def test_names_and_texts_are_what_is_written() -> None:
    wanted = read(
        """
models:
  no: {model: a.pkl, version: 010, description: 2024-01-01}
  1e3: {model: a.pkl, python: 3.10}
  null: {model: a.pkl, description: "${HOME} is a text"}
"""
    )
    assert wanted.models is not None
    assert [model.name for model in wanted.models] == ["no", "1e3", "null"]
    assert wanted.models[0].versions[0].name == "010"
    assert wanted.models[0].versions[0].settings == {"description": "2024-01-01"}


def test_a_records_type_is_a_text_or_a_mapping() -> None:
    wanted = read(
        """
applications:
  text: {input_type: 'age: float64, "petal length": float64?'}
  mapping:
    input_type:
      age: float64
      petal length: float64?
      sex: string{"a","b"}
"""
    )
    text, mapping = (parse_type(each.settings["input_type"]) for each in wanted.applications)
    assert str(text) == 'age: float64, "petal length": float64?'
    assert str(mapping) == 'age: float64, "petal length": float64?, sex: string{"a", "b"}'
    (fault,) = faults_of("applications: {a: {input_type: {age: float65}}}")
    assert "input type 'float65' is not known" in fault


def test_the_current_one_of_several_versions_is_the_last() -> None:
    wanted = read(
        """
models:
  m:
    current: 2
    versions:
      1: {model: a.pkl}
      2: {model: b.pkl}
      3: {model: c.pkl}
"""
    )
    assert wanted.models is not None
    assert [version.name for version in wanted.models[0].versions] == ["1", "3", "2"]


def test_an_empty_section_is_one_and_an_absent_section_is_none() -> None:
    wanted = read("models: {}\napplications:\n")
    assert (wanted.server, wanted.models, wanted.applications, wanted.keys) == (None, (), (), None)


WRONG = [
    ("modles: {}", "1:1: the key 'modles' is not known: did you mean models?"),
    ("- a", "1:1: expected the sections server, models"),
    ("models: [a]", "1:9: models: expected models by name, found a list"),
    ("models: {m: x}", "1:13: models.m: expected settings, found 'x'"),
    ("models: {m-: {model: a}}", "1:10: models: model 'm-' is not a valid name"),
    ("models: {m: {model: a}, M: {model: a}}", "1:25: models: model 'M' differs from 'm' only in case"),
    ("applications: {a: {links: [m]}, A: {links: [m]}}", "applications: application 'A' differs from 'a' only in case"),
    ("models: {m: {}}", "1:10: models.m: expected model or artifact"),
    ("models: {m: {model: null}}", "models.m: expected model or artifact"),
    ("models: {m: {model: a, language: null}}", "models.m.language: expected python, binary, image, found nothing"),
    ("applications: {a: {links: , input_type: }}", "an application without links needs input_type"),
    ("models: {m: {model: a, replica: 2}}", "1:24: models.m: the key 'replica' is not known: did you mean replicas?"),
    ("models: {m: {model: a, make_current: true}}", "the key 'make_current' is not known"),
    ("models: {m: {model: a, replicas: 65}}", "1:34: models.m.replicas: replicas is 65: expected a number from 1"),
    ("models: {m: {model: a, replicas: 4..1}}", "1:34: models.m.replicas: '4..1' cannot be a number of replicas"),
    ("models: {m: {model: a, replicas: [1]}}", "1:34: models.m.replicas: expected"),
    ("models: {m: {model: a, max_batch: many}}", "models.m.max_batch: expected a number from 1 to 65536, found 'many'"),
    ("models: {m: {model: a, max_batch: 1.5}}", "models.m.max_batch: expected a number from 1 to 65536, found '1.5'"),
    ("models: {m: {model: a, max_batch: '5'}}", "models.m.max_batch: expected"),
    ("models: {m: {model: a, max_batch: 0}}", "models.m.max_batch: it is 0: expected a number from 1"),
    ("models: {m: {model: a, cpus: .nan}}", "models.m.cpus: expected a number from 0.01 to 1024, or null"),
    ("models: {m: {model: a, cpus: 1e999}}", "models.m.cpus: expected a number from 0.01 to 1024"),
    ("server: {allowed_host: [proxy, 'a b']}", "server.allowed_host[1]: 'a b' is not a host: expected a name"),
    (f"models: {{m: {{model: a, replicas: {'9' * 5000}}}}}", "is not a number of replicas"),
    (f"models: {{m: {{model: a, memory_bytes: {'9' * 5000}g}}}}", "is not a size"),
    (f"models: {{m: {{model: a, max_batch: {'9' * 5000}}}}}", "models.m.max_batch: expected a number"),
    ("models: {m: {model: a, memory_bytes: lots}}", "models.m.memory_bytes: 'lots' is not a size"),
    ("models: {m: {model: a, cache: yes}}", "models.m.cache: expected true or false, found 'yes'"),
    ("models: {m: {model: a, manager: dokcer}}", "models.m.manager: expected local, docker, ray, or null"),
    ("models: {m: {model: a, resources: {ssd: much}}}", "1:35: models.m.resources: the resource ssd is 'much'"),
    ("models: {m: {model: a, resources: {ssd: 0}}}", "models.m.resources: the resource ssd is 0: expected"),
    ("models: {m: {model: a, resources: {ssd: true}}}", "models.m.resources: the resource ssd is True: expected"),
    ("models: {m: {model: a, resources: {a b: 1}}}", "models.m.resources: 'a b' is not a resource's name"),
    ("models: {m: {model: a, resources: {a: 1e999}}}", "models.m.resources.a: the number 1e999 is too large"),
    ("models: {m: {model: a, env: {A: [1]}}}", "1:33: models.m.env.A: expected a text, found a list"),
    ("models: {m: {model: a, env: {A: }}}", "models.m.env.A: expected a text, found nothing"),
    ("models: {m: {model: a, env: {HOME: x}}}", "models.m.env.HOME: the variable HOME is set by Clipper"),
    ("models: {m: {model: a, env: {A: '${NOT_THERE}'}}}", "models.m.env.A: the environment has no variable NOT_THERE"),
    ("models: {m: {model: a, env: [A]}}", "models.m.env: expected names with values, found a list"),
    ("models: {m: {model: a, env: A}}", "models.m.env: 'A' is not a variable with its value"),
    ("models: {m: {model: a, secrets: [../token]}}", "models.m.secrets[0]: '../token' is not the name of a variable"),
    ("models: {m: {model: a, resources: [ssd]}}", "models.m.resources: expected names with values, found a list"),
    ("models: {m: {model: a, resources: ssd}}", "models.m.resources: 'ssd' is not a resource with its amount"),
    ("models: {m: {model: a, resources: 'a=1,a=2'}}", "models.m.resources: resources name 'a' twice"),
    ("models: {m: {model: a, input_type: float63}}", "models.m.input_type: input type 'float63' is not known"),
    ("models: {m: {model: a, sample: [yes]}}", "models.m.sample[0]: yes is not a text in every version of YAML"),
    ("models: {m: {model: '${HOME}/a'}}", "models.m.model: variables of the environment are for"),
    ("models: {m: {model: a, requirements: {a: 1}}}", "models.m.requirements: expected a path or a list of texts"),
    ("models: {m: {model: a, current: '1'}}", "models.m.current: expected versions beside it"),
    ("models: {m: {versions: {1: {model: a}, 2: {model: b}}}}", "models.m: expected current, one of 1, 2"),
    ("models: {m: {current: 3, versions: {1: {model: a}}}}", "models.m.current: expected one of 1"),
    ("models: {m: {current: 3, versions: {}}}", "models.m.versions: expected one version or more"),
    ("models: {m: {cpus: 1, versions: {1: {model: a}}}}", "1:14: models.m: cpus goes into each of versions"),
    ("models: {m: {versions: {1: {model: a, version: 2}}}}", "the version has its name already"),
    ("models: {m: {versions: {A-: {model: a}}}}", "models.m.versions: version 'A-' is not a valid name"),
    ("models: {m: {versions: {A: {model: a}, a: {model: a}}}}", "models.m.versions: version 'a' differs from 'A' only"),
    ("models: {m: {model: a, artifact: {sha256: x}}}", "models.m: expected model or artifact and not both"),
    ("models: {m: {artifact: {sha256: x, loader: file}}}", "models.m.artifact: expected target"),
    ("models: {m: {artifact: {sha256: x, loader: file, target: a}}}", "artifact.sha256: expected 64 of 0-9 and a-f"),
    ("applications: {a: {}}", "1:16: applications.a: an application without links needs input_type"),
    ("applications: {a: {links: m}}", "applications.a.links: expected a list of models, found 'm'"),
    ("applications: {a: {links: [m, m]}}", "applications.a.links[1]: this link is in the list already"),
    ("applications: {a: {links: [[m]]}}", "applications.a.links[0]: expected NAME, NAME:VERSION, or model"),
    ("applications: {a: {links: [{version: 1}]}}", "applications.a.links[0]: expected model"),
    ("applications: {a: {links: ['m:1:2']}}", "version '1:2' is not a valid name"),
    ("applications: {a: {links: [{model: 'm:1', version: 2}]}}", "m:1 has a version already"),
    ("applications: {a: {links: [{model: m, cost: -1}]}}", "applications.a.links[0].cost: '-1' is not a cost"),
    ("applications: {a: {links: [m], slo_ms: 0}}", "applications.a.slo_ms: it is 0.0: expected a number above 0"),
    ("applications: {a: {links: [m], policy: {name: exp3}}}", "a.policy: expected a text, found a mapping"),
    ("applications: {a: {links: [m], policy_parameters: {eta: 1}}}", "policy_parameters: expected policy beside it"),
    ("applications: {a: {links: [m], policy: exp3, policy_parameters: 1}}", "expected names with values, found '1'"),
    ("server: {store: 'redis://:${PASSWORD}@h/0'}", "1:17: server.store: the environment has no variable PASSWORD"),
    ("server: {query_port: 65536}", "server.query_port: it is 65536: expected a number from 0 to 65535"),
    ("server: {grpc_port: maybe}", "server.grpc_port: 'maybe' is not a port"),
    ("keys: {web: {}}", "keys.web: expected from_env"),
    ("keys: {web: {from_env: WEB}}", "1:24: keys.web.from_env: the environment has no variable WEB"),
    ("keys: {web: {from_env: clipperkey_abc}}", "the environment has no variable of this name"),
    ("keys: {web: {key: abc}}", "the key 'key' is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=[text[:60] for text, _ in WRONG])
def test_what_is_wrong_is_named_with_its_place(text: str, expected: str) -> None:
    assert expected in "\n".join(faults_of(text))


def test_all_faults_of_a_file_come_at_once() -> None:
    text = "models:\n  m: {model: a, cpus: x}\napplications:\n  a: {links: [m], wait: ever}\nserver: {workers: 0}\n"
    assert [line.split(":")[0] for line in faults_of(text)] == ["2", "4", "5"]


@pytest.mark.long
def test_work_does_not_grow_with_the_square_of_the_file() -> None:
    # It would take minutes, which is longer than a test may take.
    lines = faults_of(
        "models:\n" + "".join(f"  m{number}: {{model: a, replica{number}: 1}}\n" for number in range(20_000))
    )
    assert lines[-1] == "and 19950 more"
    long = "k" * 1_000_000
    assert (
        len(faults_of(f"models: {{m: {{model: a, ? {long} : 1, sample: {{? {long} : {['text'] * 100_000}}}}}}}")) == 1
    )


def test_a_secret_is_in_no_message_and_not_shown() -> None:
    secret = "not valid, with spaces"
    assert secret not in "\n".join(faults_of("keys: {web: {from_env: WEB}}", WEB=secret))
    wanted = read("server: {store: 'redis://:${PW}@h/0'}\nkeys: {web: {from_env: WEB}}", PW="hunter2", WEB=KEY)
    assert wanted.server == {"store": "redis://:hunter2@h/0"}
    assert "hunter2" not in repr(wanted) and KEY not in repr(wanted)


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("sqlite:learned.sqlite3", "sqlite:/where/the/file/is/learned.sqlite3"),
        ("file:/run/secrets/store", "file:/run/secrets/store"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_the_store_of_a_relative_path_is_beside_the_file(store: str, expected: str) -> None:
    assert read(f"server: {{store: '{store}'}}").server == {"store": expected}


STEPS = """
applications:
  desk:
    input_type: string
    slo_ms: 300
    steps:
      gate:
        links: [gate]
        policy: exp3
      dear:
        application: shared
        input: {text: query, score: gate.score}
        when: gate.confidence < 0.8
        for_each: gate.items
        at_most: 7
    output: {answer: dear or gate, sure: gate.confidence}
"""


def test_steps_of_a_pipeline_have_applications_of_their_own() -> None:
    own, pipeline = read(STEPS).applications or ()
    assert (own.name, own.links, own.settings) == ("desk.gate", (Link("gate"),), {"policy": "exp3", "slo_ms": 300.0})
    assert pipeline.name == "desk"
    assert pipeline.steps == {
        "gate": Step(),
        "dear": Step("shared", {"text": "query", "score": "gate.score"}, "gate.confidence < 0.8", "gate.items", 7),
    }
    assert pipeline.settings["output"] == {"answer": "dear or gate", "sure": "gate.confidence"}
    # A message of the server's about a step is put where the step is.
    for message, line in (("steps.dear.when: it", 13), ("steps.dear.input.text: it", 12), ("output: it", 16)):
        assert place_of(pipeline, message).line == line
    assert place_of(pipeline, "anything else").line == 3


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("gate.score}", "gat.score}", 12, "'gat.score' is not known"),
        ("query, score", "dear, score", 12, "'dear' is not known"),
        ("dear or gate", "deer or gate", 16, "'deer' is not known"),
        ("< 0.8", "0.8", 13, "is not a comparison"),
        ("at_most: 7", "at_most: 0", 15, "expected a number from 1 to 1000"),
        ("at_most: 7", "most: 7", 15, "did you mean at_most?"),
        ("application: shared", "application: shared\n        policy: exp3", 12, "it goes without application"),
        ("gate:\n", "ga te:\n", 7, "is not a valid name"),
        ("{text: query, score: gate.score}", "[1, 2]", 12, "expected a text or names with values"),
        ("{text: query, score: gate.score}", "{text: 3, score: gate.score}", 10, "Expected `str`"),
    ],
)
def test_faults_of_steps_have_their_place(old: str, new: str, line: int, told: str) -> None:
    assert old in STEPS
    faults = faults_of(STEPS.replace(old, new, 1))
    assert any(fault.startswith(f"{line}:") and told in fault for fault in faults), faults


def test_a_file_of_a_pipeline_alone() -> None:
    text = "input_type: string\nsteps:\n  only: {links: [m]}\n"
    wanted, faults = read_manifest(text.encode(), FOLDER, {}, "p")
    assert faults == []
    assert [one.name for one in wanted.applications or ()] == ["p.only", "p"]
    assert list(lines_of(read_manifest(b"slo_ms: 3", FOLDER, {}, "p")[1])) == [
        "1:1: applications.p: an application without links needs input_type, e.g. float64[784]"
    ]
    assert list(lines_of(read_manifest(b"input_type: string", FOLDER, {}, "p")[1])) == ["1:1: expected steps"]
