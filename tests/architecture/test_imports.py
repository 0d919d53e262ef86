"""Which room and folder may import which others, and the rule of pure folders."""

import sys
from functools import cache
from typing import get_args

import pytest

from clipper.values.types import Framework
from tests.architecture.source_tree import PACKAGE, Import, imports, imports_in, module_name, modules

# Room to the rooms that it may import, besides itself and the errors. ARCHITECTURE.md says each room in a sentence.
ROOMS: dict[str, frozenset[str]] = {
    room: frozenset(names.split())
    for room, names in {
        "": "",
        "errors": "",
        "base": "",
        "values": "",
        "model": "base values",
        "settings": "base model values",
        "control": "base settings values",
        "learning": "base control settings values",
        "api": "base control settings values",
        "client": "api base settings values",
        "worker": "base control learning model settings values",
        "supervisor": "api base client control learning model settings values",
        "cli": "api base client control learning model settings supervisor values",
        # The paths by which users import what lies in a room.
        "policies": "learning",
        "runtime": "model",
        "selection": "policies",
    }.items()
}
OPEN = frozenset({"", "errors"})
# Folder of a room to the folders of the same room that it may import. The files beside them are free: what they may
# not do is import each other in a circle.
FOLDERS: dict[str, frozenset[str]] = {
    folder: frozenset(names.split())
    for folder, names in {
        "base.processes": "",
        "base.tls": "",
        "values.inputs": "",
        "values.outputs": "inputs",
        "model.protocol": "",
        "model.frameworks": "",
        "model.runtime": "frameworks protocol",
        "learning.mathematics": "",
        "learning.stores": "",
        "learning.policies": "mathematics",
        "learning.own_code": "mathematics policies",
        "learning.decisions": "mathematics policies",
        "api.dashboard": "",
        "api.server": "dashboard",
        "client.packaging": "",
        "worker.telemetry": "",
        "worker.abstraction": "telemetry",
        "worker.selection": "abstraction telemetry",
        "worker.frontend": "selection telemetry",
        "supervisor.registry": "",
        "supervisor.artifacts": "registry",
        "supervisor.metrics": "",
        "supervisor.managers": "",
        "supervisor.rollout": "managers registry",
        "supervisor.history": "metrics registry rollout",
        "supervisor.workers": "managers registry rollout",
        "supervisor.keepers": "artifacts history managers metrics registry rollout workers",
        "supervisor.reconciler": "history managers registry rollout workers",
        "supervisor.operations": "artifacts history keepers managers metrics reconciler registry rollout workers",
        "supervisor.leadership": "artifacts history keepers managers metrics operations registry workers",
        "cli.capacity": "",
        "cli.load": "",
        "cli.manifest": "",
        "cli.score": "",
        "cli.commands": "capacity load manifest score",
    }.items()
}

# Imports inside functions, each for a reason: module, imported module.
LAZY = {
    ("src/clipper/__init__.py", "clipper.client"),  # a container imports the package without the client's libraries
    ("src/clipper/__init__.py", "clipper.model.runtime.asking"),  # as above, the other way round
    # A node of a Ray cluster imports what the client packs, without the client's libraries.
    ("src/clipper/client/__init__.py", "clipper.client.clipper"),
    ("src/clipper/client/__init__.py", "clipper.client.query_calls"),
    ("src/clipper/learning/stores/open.py", "clipper.learning.stores.redis"),  # its library is an extra
    ("src/clipper/supervisor/server.py", "clipper.supervisor.registry.redis"),  # as above
    ("src/clipper/supervisor/managers/open.py", "clipper.supervisor.managers.docker.engine"),  # as above
    ("src/clipper/supervisor/managers/open.py", "clipper.supervisor.managers.docker.images"),
    ("src/clipper/supervisor/managers/open.py", "clipper.supervisor.managers.docker.launcher"),
    ("src/clipper/worker/worker.py", "clipper.worker.frontend.rpc.server"),  # as above
    ("src/clipper/supervisor/server.py", "clipper.supervisor.workers.credentials"),
    ("src/clipper/model/runtime/__main__.py", "clipper.model.runtime.program"),  # numpy may be missing, which is told
    ("src/clipper/worker/telemetry/exporter.py", "clipper.worker.telemetry.otlp_sender"),  # as above
    (
        "src/clipper/cli/commands/log.py",
        "clipper.learning.decisions.evaluation.whatif",
    ),  # no other command pays for numpy
    ("src/clipper/cli/commands/load.py", "clipper.cli.load.runner"),  # no other command pays for its libraries
    ("src/clipper/cli/commands/apply.py", "clipper.cli.commands.manifest_file"),  # as above
    ("src/clipper/cli/commands/server.py", "clipper.cli.commands.manifest_file"),
    ("src/clipper/cli/commands/app.py", "clipper.cli.commands.manifest_file"),
    # numpy takes longer to load than most commands take.
    ("src/clipper/cli/commands/log.py", "clipper.learning.decisions.export"),
    ("src/clipper/cli/commands/score.py", "clipper.cli.score.inputs"),
    ("src/clipper/cli/commands/score.py", "clipper.cli.score.output"),
    ("src/clipper/cli/commands/score.py", "clipper.cli.score.parquet_output"),
    ("src/clipper/cli/commands/score.py", "clipper.cli.score.run"),
    ("src/clipper/cli/commands/score.py", "clipper.cli.score.sources"),
}

PURE = (
    "clipper.worker.abstraction.batching",
    "clipper.worker.abstraction.cache",
    "clipper.client.failures",
    "clipper.base.http1",
    "clipper.client.query_calls",
    "clipper.client.tensors",
    "clipper.learning.decisions.evaluation",
    "clipper.values.inputs",
    "clipper.supervisor.registry.lease",
    "clipper.values.outputs",
    "clipper.learning.policies",
    "clipper.learning.mathematics",
    "clipper.model.protocol",
    "clipper.control.address",
    "clipper.control.difference",
    "clipper.worker.frontend.inference.answers",
    "clipper.worker.frontend.inference.feedback",
    "clipper.worker.frontend.inference.framing",
    "clipper.worker.frontend.inference.json_data",
    "clipper.worker.frontend.inference.metadata",
    "clipper.worker.frontend.inference.paths",
    "clipper.worker.frontend.inference.requests",
    "clipper.worker.frontend.inference.tensors",
    "clipper.worker.frontend.http.openapi",
    "clipper.worker.frontend.rpc.answers",
    "clipper.worker.frontend.rpc.contents",
    "clipper.worker.frontend.rpc.framing",
    "clipper.worker.frontend.rpc.protocols",
    "clipper.worker.frontend.rpc.reflection",
    "clipper.worker.frontend.rpc.requests",
    "clipper.worker.frontend.rpc.schema",
    "clipper.worker.frontend.rpc.session",
    "clipper.worker.frontend.rpc.statuses",
    "clipper.worker.frontend.rpc.stream",
    "clipper.worker.frontend.rpc.wire",
    "clipper.supervisor.managers.shares",
    "clipper.supervisor.managers.local.warmth",
    "clipper.supervisor.managers.docker.options",
    "clipper.supervisor.managers.ray.messages",
    "clipper.supervisor.managers.ray.placement",
    "clipper.supervisor.managers.reconcile",
    "clipper.supervisor.managers.environments.uv_settings",
    "clipper.supervisor.managers.environments.plan",
    "clipper.base.processes.excess",
    "clipper.supervisor.history.changes",
    "clipper.supervisor.history.event_log",
    "clipper.supervisor.history.story",
    "clipper.worker.selection.pipeline.open_asks",
    "clipper.worker.selection.pipeline.run",
    "clipper.worker.selection.pipeline.times",
    "clipper.worker.telemetry.lines",
    "clipper.worker.telemetry.otlp",
    "clipper.worker.telemetry.request_note",
    "clipper.worker.telemetry.spans",
    "clipper.worker.telemetry.trace_context",
    "clipper.supervisor.rollout",
    "clipper.supervisor.history.recent",
    "clipper.supervisor.history.ring",
    "clipper.supervisor.history.sampler",
    "clipper.supervisor.history.values",
    "clipper.base.turn_budget",
    "clipper.cli.capacity",
    "clipper.cli.load.arrivals",
    "clipper.cli.load.inputs",
    "clipper.cli.load.page",
    "clipper.cli.load.records",
    "clipper.cli.load.report",
    "clipper.cli.load.summary",
    "clipper.cli.load.sweep",
    "clipper.cli.manifest",
    "clipper.api.pages",
    "clipper.api.reports",
)
IMPURE = {"asyncio", "socket", "time", "random", "logging", "selectors", "threading", "subprocess", "uvloop"}
# An argument of this type brings randomness in; the rule is there so that it comes in as an argument.
PURE_NAMES = {("random", "Random")}

# A model's own environment has to hold these, beside the model's own requirements.
RUNTIME = ("clipper.model.runtime", "clipper.values.types", "clipper.errors", "clipper.model.protocol")
RUNTIME_THIRD_PARTY = {"numpy"}
# A reader of a framework's models imports that framework, and is itself imported only where there is such a model.
FRAMEWORKS = "clipper.model.frameworks"
# Imports no framework: what they all share, and what stands in for a part of one that a pickle brings.
OF_NONE = tuple(
    f"{FRAMEWORKS}{name}"
    for name in (
        "",
        ".framework",
        ".tensors",
        ".hidden_markov",
        ".estimator_columns",
        ".table",
        ".quick_columns",
        ".quick_predict",
        ".scikit_learn",
    )
)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str:
    """The first name below ``clipper``; empty for the package itself."""
    return f"{module}.".split(".")[1]


def folder_of(module: str) -> str:
    """The folder of its room that holds a module, such as ``worker.frontend``; empty for a file beside the folders."""
    names = module.split(".")[1:3]
    return ".".join(names) if ".".join(names) in FOLDERS else ""


def breaks_order(importer: str, imported: str) -> bool:
    room, other = room_of(importer), room_of(imported)
    if room != other:
        return other not in OPEN | ROOMS[room]
    folder, beside = folder_of(importer), folder_of(imported)
    if not folder or not beside or folder == beside:
        return False
    return beside.removeprefix(f"{room}.") not in FOLDERS[folder]


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


@pytest.mark.parametrize("table", [ROOMS, FOLDERS], ids=["rooms", "folders"])
def test_the_tables_have_no_cycle(table: dict[str, frozenset[str]]) -> None:
    left = {
        unit: {f"{unit.partition('.')[0]}.{name}" if "." in unit else name for name in names}
        for unit, names in table.items()
    }
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


def test_every_edge_of_the_tables_is_used() -> None:
    pairs = [(importer_of(found), found.module) for found in ours()]
    rooms = {(room_of(importer), room_of(imported)) for importer, imported in pairs}
    folders = {(folder_of(importer), folder_of(imported)) for importer, imported in pairs}
    unused = [(room, name) for room, names in ROOMS.items() for name in names if (room, name) not in rooms]
    unused += [
        (folder, name)
        for folder, names in FOLDERS.items()
        for name in names
        if (folder, f"{folder.partition('.')[0]}.{name}") not in folders
    ]
    assert sorted(unused) == []


def test_the_tables_hold_every_room_and_folder() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == ROOMS.keys() - {""}
    folders = {f"{path.parent.parent.name}.{path.parent.name}" for path in PACKAGE.glob("*/*/__init__.py")}
    assert folders == FOLDERS.keys()


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
    text = "import a.b\nfrom clipper import errors\ndef f():\n    from . import model\n    from ..values import types\n"
    found = [(item.module, item.lazy) for item in imports_in(text, "x.py", "clipper.model.runtime")]
    assert found == [
        ("a.b", False),
        ("clipper.errors", False),
        ("clipper.model.runtime", True),
        ("clipper.model.values", True),
    ]


def test_order_check_refuses_an_upward_import() -> None:
    assert breaks_order("clipper.worker.abstraction.predictor", "clipper.worker.frontend.http.connection")
    assert not breaks_order("clipper.worker.frontend.http.connection", "clipper.worker.selection.selector")
