"""ARCHITECTURE.md's table of imports and its rule of pure folders, as code."""

import sys
from functools import cache
from typing import get_args

import pytest

from clipper.types import Framework
from tests.architecture.source_tree import PACKAGE, Import, imports, imports_in, module_name, modules

# Unit to the units of ours that it may import, besides itself and the open ones. The longest name that fits a
# module is its unit. A new folder has to be entered here and in ARCHITECTURE.md.
OPEN = frozenset({"errors", "types"})
ALLOWED: dict[str, frozenset[str]] = {
    unit: frozenset(names.split())
    for unit, names in {
        "": "",
        "errors": "",
        "types": "",
        "hosts": "",
        "extras": "",
        "settings": "containers.protocol hosts",
        "open_files": "",
        "http1": "",
        "tcp": "",
        "durable_redis": "",
        "malloc": "",
        "log_format": "",
        "telemetry.trace_context": "containers.protocol",
        "telemetry.request_note": "telemetry.trace_context",
        "telemetry.spans": "containers.protocol telemetry.request_note telemetry.trace_context",
        "telemetry": "background telemetry.request_note telemetry.spans telemetry.trace_context control.statistics "
        "extras log_format settings",
        "turn_budget": "",
        "tls": "turn_budget",
        "run_as": "",
        "trees": "",
        "whole_files": "",
        "background": "",
        "build": "",
        "home": "",
        "control.descriptions": "",
        "control.feedback": "",
        "control.address": "",
        "control.snapshot": "control.address settings",
        "control.difference": "control.snapshot",
        "control.shared_settings": "run_as settings tls",
        "control.statistics": "control.descriptions",
        "control": "control.address control.difference control.feedback control.snapshot control.statistics tcp tls "
        "turn_budget whole_files control.descriptions",
        "containers.protocol": "",
        "containers": "containers.protocol tcp tls",
        "runtime": "containers.protocol log_format",
        "metrics.histogram": "control.statistics",
        "metrics.regret": "control.statistics",
        "outputs": "containers.protocol inputs",
        "abstraction": "containers containers.protocol outputs metrics.histogram control.difference control.snapshot "
        "control.statistics settings telemetry telemetry.spans telemetry.trace_context",
        "decisions": "background control.statistics outputs",
        "decisions.evaluation": "decisions selection.learning selection.policies",
        "selection.learning": "",
        "selection.policies": "control.descriptions control.statistics selection.learning",
        "selection.stores": "durable_redis",
        "selection.check": "run_as selection.policies settings",
        "selection.trial": "processes run_as selection.check settings trees",
        "selection": "control.descriptions decisions selection.learning selection.policies selection.stores "
        "selection.trial abstraction outputs control control.feedback metrics.histogram control.snapshot "
        "control.statistics settings telemetry telemetry.request_note telemetry.trace_context",
        "inputs": "",
        "frontend.limits": "settings",
        "frontend": "frontend.limits inputs outputs malloc selection control.difference control.feedback "
        "control.snapshot control.statistics telemetry telemetry.request_note tls turn_budget",
        "worker": "control.shared_settings decisions frontend frontend.limits malloc open_files selection "
        "selection.stores selection.trial control.address control.difference control.feedback abstraction control "
        "processes control.snapshot control.statistics tls log_format telemetry turn_budget",
        "metrics.sums": "",
        "series": "control control.statistics management.recent metrics.histogram metrics.regret metrics.sums",
        "events": "control.snapshot management.events registry rollout settings whole_files",
        "lease": "",
        "registry": "control.descriptions settings control.snapshot durable_redis lease",
        "managers.reconcile": "",
        "processes": "run_as",
        "rollout": "control.descriptions managers.reconcile registry selection.policies control.difference "
        "control.snapshot settings",
        "managers": "managers.reconcile processes run_as containers.protocol control.address control.snapshot "
        "settings tls",
        "managers.environments": "managers packaging processes run_as trees settings",
        "managers.local": "managers managers.environments processes run_as control.address control.snapshot settings "
        "trees",
        "managers.docker": "managers processes control.snapshot settings trees",
        "managers.ray": "build extras managers managers.environments managers.local managers.reconcile processes "
        "run_as control control.address control.snapshot settings tcp tls trees turn_budget",
        "managers.open": "managers managers.local managers.docker managers.ray settings",
        "dashboard": "",
        "management.events": "",
        "management.learned": "",
        "management.recent": "",
        "management.reports": "control.descriptions management.recent",
        "management.series": "",
        "management.schemas": "control.descriptions management.learned management.recent settings",
        "metrics": "control.descriptions management.learned management.schemas control.statistics metrics.regret "
        "metrics.sums",
        "management": "dashboard hosts management.events management.reports management.schemas management.series "
        "settings tls turn_budget",
        "supervisor": "control.descriptions control.shared_settings build events extras log_format rollout "
        "managers.reconcile home hosts http1 malloc open_files management management.events management.learned "
        "management.recent management.reports management.schemas management.series metrics metrics.histogram "
        "metrics.sums managers managers.environments managers.open registry lease control control.address "
        "control.difference inputs processes series selection.trial selection.learning run_as settings "
        "selection.policies selection.stores control.snapshot control.statistics tls trees whole_files",
        "packaging": "",
        "backup": "home processes registry selection.stores trees",
        "client.failures": "management.schemas",
        "client.http_api": "client.failures http1 tls",
        "client": "home hosts http1 client.failures client.http_api packaging management.events management.reports "
        "management.schemas management.series settings tls",
        "pages": "",
        "manifest": "management.schemas packaging selection.policies settings",
        "apply": "client home management.schemas manifest packaging settings",
        "load": "client.http_api http1 pages settings tls",
        "cli": "control.descriptions apply backup build client dashboard decisions decisions.evaluation extras home "
        "hosts load manifest packaging management.events management.learned management.recent management.reports "
        "management.schemas pages processes run_as settings tls",
    }.items()
}

# Imports inside functions, each for a reason: module, imported module.
LAZY = {
    ("src/clipper/__init__.py", "clipper.client"),  # a container imports the package without the client's libraries
    ("src/clipper/selection/stores/open.py", "clipper.selection.stores.redis"),  # its library is an extra
    ("src/clipper/supervisor/server.py", "clipper.registry.redis"),  # as above
    ("src/clipper/managers/docker/open.py", "clipper.managers.docker.engine"),  # as above
    ("src/clipper/managers/docker/open.py", "clipper.managers.docker.images"),
    ("src/clipper/managers/docker/open.py", "clipper.managers.docker.launcher"),
    ("src/clipper/frontend/rpc/open.py", "clipper.frontend.rpc.server"),  # as above
    ("src/clipper/supervisor/server.py", "clipper.supervisor.workers.credentials"),
    ("src/clipper/runtime/__main__.py", "clipper.runtime.program"),  # numpy may be missing, which is told
    ("src/clipper/telemetry/exporter.py", "clipper.telemetry.otlp_sender"),  # as above
    ("src/clipper/cli/log.py", "clipper.decisions.evaluation.whatif"),  # no other command pays for numpy
    ("src/clipper/cli/load.py", "clipper.load.runner"),  # no other command pays for its libraries
    ("src/clipper/cli/apply.py", "clipper.cli.manifest_file"),  # as above
    ("src/clipper/cli/server.py", "clipper.cli.manifest_file"),
}

PURE = (
    "clipper.abstraction.batching",
    "clipper.abstraction.cache",
    "clipper.client.failures",
    "clipper.http1",
    "clipper.client.query_calls",
    "clipper.client.tensors",
    "clipper.decisions.evaluation",
    "clipper.inputs",
    "clipper.lease",
    "clipper.outputs",
    "clipper.selection.policies",
    "clipper.selection.learning",
    "clipper.containers.protocol",
    "clipper.control.address",
    "clipper.control.difference",
    "clipper.frontend.inference.answers",
    "clipper.frontend.inference.errors",
    "clipper.frontend.inference.feedback",
    "clipper.frontend.inference.framing",
    "clipper.frontend.inference.inflate",
    "clipper.frontend.inference.json_data",
    "clipper.frontend.inference.metadata",
    "clipper.frontend.inference.paths",
    "clipper.frontend.inference.requests",
    "clipper.frontend.inference.tensors",
    "clipper.frontend.openapi",
    "clipper.frontend.rpc.answers",
    "clipper.frontend.rpc.contents",
    "clipper.frontend.rpc.descriptors",
    "clipper.frontend.rpc.framing",
    "clipper.frontend.rpc.protocols",
    "clipper.frontend.rpc.reflection",
    "clipper.frontend.rpc.requests",
    "clipper.frontend.rpc.schema",
    "clipper.frontend.rpc.session",
    "clipper.frontend.rpc.statuses",
    "clipper.frontend.rpc.stream",
    "clipper.frontend.rpc.wire",
    "clipper.managers.start_time",
    "clipper.managers.shares",
    "clipper.managers.local.fork_messages",
    "clipper.managers.local.warmth",
    "clipper.managers.docker.log_lines",
    "clipper.managers.docker.options",
    "clipper.managers.docker.dockerfile",
    "clipper.managers.ray.messages",
    "clipper.managers.ray.placement",
    "clipper.managers.ray.revival",
    "clipper.managers.reconcile",
    "clipper.managers.environments.output",
    "clipper.managers.environments.pip_settings",
    "clipper.managers.environments.plan",
    "clipper.managers.environments.recipe",
    "clipper.managers.environments.retention",
    "clipper.managers.environments.surroundings",
    "clipper.processes.excess",
    "clipper.events.changes",
    "clipper.events.log",
    "clipper.events.story",
    "clipper.telemetry.lines",
    "clipper.telemetry.otlp",
    "clipper.telemetry.request_note",
    "clipper.telemetry.spans",
    "clipper.telemetry.trace_context",
    "clipper.rollout",
    "clipper.series",
    "clipper.turn_budget",
    "clipper.load.arrivals",
    "clipper.load.inputs",
    "clipper.load.options",
    "clipper.load.page",
    "clipper.load.records",
    "clipper.load.report",
    "clipper.load.summary",
    "clipper.load.sweep",
    "clipper.manifest",
    "clipper.pages",
    "clipper.management.reports",
)
IMPURE = {"asyncio", "socket", "time", "random", "logging", "selectors", "threading", "subprocess", "uvloop"}
# The type of an argument that brings randomness in, which is what the rule is for.
PURE_NAMES = {("random", "Random")}

# What a model's own environment has to hold, besides what the model needs.
RUNTIME = ("clipper.runtime", "clipper.types", "clipper.errors", "clipper.containers.protocol")
RUNTIME_THIRD_PARTY = {"numpy"}
# What reads a framework's models imports that framework, and is itself imported only where there is such a model.
FRAMEWORKS = "clipper.runtime.frameworks"
# Imports no framework: what they all share, and what stands in for a part of one that a pickle brings.
OF_NONE = tuple(
    f"{FRAMEWORKS}{name}"
    for name in ("", ".framework", ".tensors", ".hidden_markov", ".quick_predict", ".scikit_learn")
)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def unit_of(module: str) -> str:
    """The longest unit in the table that holds the module.

    Raises:
        KeyError: no unit does.
    """
    name = module.removeprefix("clipper").removeprefix(".")
    fitting = [unit for unit in ALLOWED if unit == name or (unit and name.startswith(unit + "."))]
    if not fitting:
        raise KeyError(f"{module} is in no unit: enter it in this table and in ARCHITECTURE.md")
    return max(fitting, key=len)


def breaks_order(importer: str, imported: str) -> bool:
    mine, other = unit_of(importer), unit_of(imported)
    return other not in {mine, "", *OPEN, *ALLOWED[mine]}


@cache
def importer_of(found: Import) -> str:
    return module_name(PACKAGE.parent.parent / found.file)


def ours() -> list[Import]:
    return [found for found in imports() if within(found.module, "clipper")]


def test_every_import_follows_the_table() -> None:
    wrong = [
        str(found) for found in ours() if breaks_order(importer_of(found), found.module) and not is_declared(found)
    ]
    assert wrong == []


def is_declared(found: Import) -> bool:
    return (found.file, found.module) in LAZY


def test_the_table_has_no_cycle() -> None:
    left = {unit: set(names) - {unit} for unit, names in ALLOWED.items()}
    while left:
        lowest = {unit for unit, names in left.items() if not names & left.keys()}
        assert lowest, f"these import each other: {sorted(left)}"
        left = {unit: names for unit, names in left.items() if unit not in lowest}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even for a type: what two modules both need is a third."""
    left: dict[str, set[str]] = {module: set() for module in modules()}
    for found in ours():
        left[importer_of(found)].add(found.module)
    while left:
        lowest = {module for module, imported in left.items() if not (imported - {module}) & left.keys()}
        assert lowest, f"these import each other: {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in lowest}


def test_every_edge_of_the_table_is_used() -> None:
    used = {(unit_of(importer_of(found)), unit_of(found.module)) for found in ours()}
    assert sorted((unit, name) for unit, names in ALLOWED.items() for name in names if (unit, name) not in used) == []


def test_every_unit_of_the_table_exists() -> None:
    missing = [unit for unit in ALLOWED if f"clipper.{unit}".rstrip(".") not in modules()]
    assert missing == []


@pytest.mark.parametrize("package", PURE)
def test_what_decides_does_no_io(package: str) -> None:
    inside = [found for found in imports() if within(importer_of(found), package)]
    assert inside, f"{package} is empty"
    assert [str(found) for found in inside if is_impure(found)] == []


def is_impure(found: Import) -> bool:
    return found.module.split(".")[0] in IMPURE and (found.module, found.name) not in PURE_NAMES


def test_purity_check_refuses_hidden_randomness() -> None:
    text = "import random\nfrom random import random\nfrom random import Random\nfrom asyncio import sleep\n"
    assert [is_impure(found) for found in imports_in(text, "x.py", "clipper")] == [True, True, False, True]


def test_the_runtime_needs_only_numpy() -> None:
    inside = [found for found in imports() if any(within(importer_of(found), package) for package in RUNTIME)]
    allowed = sys.stdlib_module_names | RUNTIME_THIRD_PARTY | {"clipper"}
    # A library that the model brings, such as joblib, is imported only when such a model is loaded.
    wrong = [
        str(found)
        for found in inside
        if found.module.split(".")[0] not in allowed and not found.lazy and not reads_a_framework(importer_of(found))
    ]
    assert wrong == []


def reads_a_framework(module: str) -> bool:
    return within(module, FRAMEWORKS) and module not in OF_NONE


def test_what_reads_a_framework_is_imported_for_a_model_of_it_alone() -> None:
    readers = [found for found in ours() if reads_a_framework(found.module)]
    wrong = [str(found) for found in readers if not reads_a_framework(importer_of(found))]
    assert wrong == []


def test_every_framework_has_a_module_of_its_name() -> None:
    # Pickles hold objects of any library: what loads them is the runtime's own.
    lacking = {name for name in get_args(Framework) if f"{FRAMEWORKS}.{name}" not in modules()}
    assert lacking == {"pickle", "joblib"}


def test_imports_of_ours_stand_at_the_top() -> None:
    lazy = [found for found in ours() if found.lazy and not is_declared(found)]
    assert [str(found) for found in lazy] == []


def test_declared_lazy_imports_exist() -> None:
    assert {(found.file, found.module) for found in ours() if found.lazy} >= LAZY


def test_reader_sees_imports_in_every_form() -> None:
    text = "import a.b\nfrom clipper import types\ndef f():\n    from . import errors\n    from ..types import DType\n"
    found = [(item.module, item.lazy) for item in imports_in(text, "x.py", "clipper.runtime")]
    assert found == [("a.b", False), ("clipper.types", False), ("clipper.runtime", True), ("clipper.types", True)]


def test_order_check_refuses_an_upward_import() -> None:
    assert breaks_order("clipper.abstraction.predictor", "clipper.frontend.connection")
    assert not breaks_order("clipper.frontend.connection", "clipper.selection.selector")
