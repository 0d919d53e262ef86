"""The interfaces that docs/stability.md promises, each as facts: ``facts_of(NAME)``."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

import clipper.client
import clipper.policies
from clipper.api.server.app import create_app
from clipper.api.server.statuses import STATUSES as MANAGEMENT_STATUSES
from clipper.learning.mathematics.losses import LOSSES
from clipper.learning.policies.by_name import POLICIES
from clipper.model.model import ModelContainer
from clipper.supervisor.metrics import definitions
from clipper.values.records import parse_type
from clipper.worker.frontend.http.openapi import Described, frame, paths_of
from clipper.worker.frontend.http.statuses import STATUSES
from scripts.manifest_pages import make_schema
from scripts.option_tables import commands
from tests.stable.facts import DEMAND, Schemas, of_class, of_openapi
from tests.stable.outputs import JSON_OUTPUTS

ROOT = Path(__file__).parents[2]
# Facts that the last release has promised, in a file for each interface.
KEPT = Path(__file__).parent / "kept"
# Facts of what the pages and the help call experimental: any release may change it.
EXPERIMENTAL = re.compile(
    r"[Pp]ipeline|\.steps\b|max[-_]cost[-_]per|min[-_]quality|[Ff]rontier|[Bb]udget|gpus?\b|gpu_|GpuStatus|precision"
)


def facts_of(name: str) -> list[str]:
    """Return the facts of an interface in order, without what is experimental."""
    return sorted(fact for fact in SURFACES[name]() if not EXPERIMENTAL.search(fact))


def kept(name: str) -> list[str]:
    """Return the facts that the last release has promised of an interface."""
    return (KEPT / f"{name}.txt").read_text().splitlines()


def _query_port() -> set[str]:
    record = Described("A", parse_type("age: float64, job: string?"), 0.02, 2, needs_key=True)
    return of_openapi(frame() | {"paths": frame()["paths"] | paths_of(record)})


def _management_port() -> set[str]:
    # Nothing is called, so there need be nothing to call.
    document = create_app(None).openapi_schema.to_schema()  # type: ignore[arg-type]
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("400", None)  # the framework's own, which Clipper answers in its own form
    return of_openapi(document)


def _error_codes() -> Iterator[str]:
    for port, statuses in (("query port", STATUSES), ("management port", MANAGEMENT_STATUSES)):
        for code, status in statuses.items():
            yield f"{code} is {status} on the {port}"


def _commands() -> Iterator[str]:
    for name, command in commands():
        yield f"{name} is a command"
        for parameter in command.params:
            names = parameter.opts + parameter.secondary_opts
            if parameter.param_type_name == "argument":
                names = [parameter.name.upper()]
            yield from (f"{name} takes {each}" for each in names)
            if parameter.required:
                yield f"{name}{DEMAND}{names[0]}"
            if variable := parameter.envvar:
                yield f"{name} reads {variable} for {names[0]}"


def _json_outputs() -> set[str]:
    kinds = list(JSON_OUTPUTS.values())
    shown, named = msgspec.json.schema_components(kinds)
    schemas = Schemas(named)
    for command, schema in zip(JSON_OUTPUTS, shown, strict=True):
        schemas.add("out", f"clipper {command} --json", schema)
    return schemas.facts


def _manifest() -> set[str]:
    schema = make_schema()
    schemas = Schemas(schema["$defs"])
    schemas.add("in", "clipper.yaml", schema)
    return schemas.facts


def _container_protocol() -> Iterator[str]:
    for vector in sorted((ROOT / "proto" / "vectors").iterdir()):
        yield f"{vector.name} has digest {hashlib.sha256(vector.read_bytes()).hexdigest()}"


def _grpc() -> Iterator[str]:
    """The calls and fields of the two services, with the numbers that are on the wire."""
    for file in sorted((ROOT / "proto").glob("*.proto")):
        package, inside = "", []
        for line in map(str.strip, file.read_text().splitlines()):
            if found := re.match(r"package (\S+);", line):
                package = found[1]
            elif found := re.match(r"\w+ (\w+) \{", line):
                inside.append(found[1])
            elif found := re.match(r"rpc (\w+)\((.*)\) returns \((.*)\)", line):
                yield f"{package}.{inside[-1]}.{found[1]} takes {found[2]} and answers {found[3]}"
            elif found := re.match(r"(.*) (\w+) = (\d+);", line):
                yield f"{'.'.join([package, *inside, found[2]])} is {found[1]} with number {found[3]}"
            if line.endswith("}") and "returns" not in line:
                inside.pop()


def _metrics() -> Iterator[str]:
    groups = {id(each): each for each in vars(definitions).values() if isinstance(each, definitions.Group)}
    for group in groups.values():
        for metric in group.metrics:
            number = isinstance(metric, definitions.Number)
            labels = [*group.labels, *filter(None, [metric.extra if number else None])]
            kind = metric.kind if number else "histogram"
            yield f"{metric.name} is a {kind} with labels {', '.join(labels) or 'none'}"


def _python() -> Iterator[str]:
    for module in (clipper.client, clipper.policies):
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, type):
                yield from of_class(thing, f"{module.__name__}.{name}")
            else:
                yield f"{module.__name__}.{name} is known"
    for name in clipper.__all__:
        yield f"clipper.{name} is known"
    trace = import_module("clipper.runtime.trace")
    yield f"clipper.runtime.trace.current_trace is a {type(trace.current_trace).__name__}"
    yield from of_class(ModelContainer, "a model's class")


def _entry_points() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield f"pip install {project['name']}"
    yield from (f"the program {each}" for each in project["scripts"])
    inner = {"dev", "mutants", "bench", "paper"}
    yield from (f"pip install {project['name']}[{each}]" for each in project["optional-dependencies"].keys() - inner)
    yield from (f"the policy {each}" for each in POLICIES)
    yield from (f"the loss {each}" for each in LOSSES)
    yield "python -m clipper.runtime runs a model"
    yield "entry points of the group clipper.policies name policies"


SURFACES: dict[str, Callable[[], Any]] = {
    "query_port": _query_port,
    "grpc": _grpc,
    "management_port": _management_port,
    "error_codes": _error_codes,
    "commands": _commands,
    "json_outputs": _json_outputs,
    "clipper_yaml": _manifest,
    "container_protocol": _container_protocol,
    "metrics": _metrics,
    "python": _python,
    "entry_points": _entry_points,
}
