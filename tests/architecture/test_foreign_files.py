"""Text that others can write is read as bytes, or with its errors said; two more rules of that kind.

A name, a file or a folder that another user or a model has made may hold anything. So text is read from it only where
it is said what happens to bytes that are no text. A tree of it is not walked by what recurses, or by paths, which the
kernel bounds. A process id alone is no proof: it passes to other processes. Exceptions are here, each with its reason.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import pytest

from tests.architecture.source_tree import ROOT, files

# Reads of text that say nothing about errors: file and function, to why that does no harm.
READS = {
    ("worker/frontend/rpc/protocols.py", "_read"): "comes with Clipper",
    ("worker/frontend/rpc/protocols.py", ""): "comes with Clipper",
    (
        "supervisor/managers/docker/launcher.py",
        "token",
    ): "the server made it, in a folder that the container may only read",
    ("supervisor/managers/environments/provider.py", "prepare"): "a ValueError is told as the version's",
    ("client/packaging/frameworks.py", "_is_prototxt"): "a file of the command's own user",
    ("client/packaging/needs.py", "_mlflow"): "a file of the command's own user",
    ("client/packaging/needs.py", "_spark"): "a file of the command's own user",
    ("client/packaging/requirements_file.py", "_lines_of"): "a file of the command's own user",
    ("base/known_ids.py", "read"): "the server's own, in its home, where nobody else may write",
    ("model/frameworks/caffe.py", "load"): "the model's own process reads it, and fails as on any of its files",
    (
        "model/frameworks/spark.py",
        "_read",
    ): "the model's own process reads it, and fails as on any of its files",
    ("settings/texts.py", "text_of"): "a file of the command's own user",
    ("supervisor/config.py", "_store_address"): "a file of the operator's",
    ("base/build.py", "commit"): "a ValueError is caught",
    ("cli/tables.py", "_of_csv"): "a file of the command's own user",
    ("settings/sample_files.py", "_csv"): "a ValueError is told",
    ("settings/sample_files.py", "_json_lines"): "a ValueError is told",
    ("supervisor/managers/environments/builder.py", "_install"): "a method that takes a text to write",
    ("supervisor/operations/tokens.py", "again"): "a method that reads bytes",
    ("supervisor/operations/tokens.py", "__init__"): "the same",
    ("supervisor/server.py", "run"): "the same",
    ("worker/abstraction/model_queue.py", "set_replicas"): "a method that opens a link",
    ("supervisor/folders.py", "make_id"): "the server's own, in its home, where nobody else may write",
}
# Walkers recurse with the depth of a tree, or build paths; so does a function that calls itself and a lister.
LISTERS = {"listdir", "scandir", "iterdir", "glob"}
WALKERS = {"walk", "fwalk", "rmtree", "rglob", "copytree"}
WALKS = {
    ("cli/commands/score.py", "_sources"): "a folder of files that this command has fetched",
    ("cli/manifest_facts.py", "write_artifact"): "an artifact, whose depth was bounded when it was unpacked",
    ("client/packaging/addresses.py", "digest_of"): "fetched by this user into a folder of this user's",
    ("client/packaging/addresses.py", "pickle_warning"): "the same",
    ("base/build.py", "build_id"): "Clipper's own code",
    ("api/dashboard/files.py", "read_files"): "comes with Clipper",
    ("supervisor/managers/docker/images.py", "_runtime_files"): "Clipper's own code",
    ("client/packaging/code.py", "_python_files"): "a folder of the command's own user",
    ("client/packaging/models.py", "_members"): "a folder of the command's own user",
    ("client/packaging/needs.py", "_files"): "an artifact, whose depth was bounded when it was unpacked",
    ("base/trees.py", "_seal"): "bounded by MAX_DEPTH",
    ("supervisor/artifacts/unpacking.py", "_seal"): "just unpacked, from members whose depth is bounded",
}
# Functions that look a process up by its number, or send a signal to one, each with the reason why it may.
PIDS = {
    ("base/oom.py", "end_first"): "of itself, or of a child that has not been reaped",
    ("base/processes/proc.py", "pids"): "lists numbers",
    ("base/processes/proc.py", "stat_fields"): "the start time is among what it reads",
    ("base/processes/proc.py", "variable"): "its callers hold a pidfd, compare the start time, or only count",
    ("base/processes/proc.py", "program_of"): "nothing is done to the process",
    ("base/processes/proc.py", "user_of"): "its callers hold a pidfd, compare the start time, or only count",
    ("base/processes/proc.py", "parent_of"): "nothing is done to the process",
    ("base/processes/proc.py", "proportional_bytes"): "only counts",
    ("base/processes/proc.py", "_waited_s"): "only counts",
    ("base/processes/limits.py", "apply"): "of a child that has not been reaped",
    (
        "base/processes/process.py",
        "kill_group",
    ): "of a child that has not been reaped, or whose start time was compared",
    ("base/processes/folder.py", "watch"): "a child that has not been reaped",
    ("supervisor/managers/environments/provider.py", "_ask_process"): "a child that has not been reaped",
    ("supervisor/managers/environments/prepare.py", "_end_with"): "its own group",
    ("cli/starting.py", "_signal"): "the holder of the home's lock at that moment",
}


class Found(NamedTuple):
    """A call or a text: in which function, in which line."""

    file: str
    function: str
    line: int


def found_in(node: ast.AST, file: str, function: str = "") -> Iterator[tuple[str, Found]]:
    """Everything that a rule is about, with the rule's name."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        function = node.name
        if _names_in(node) >= {node.name} and _names_in(node) & LISTERS:
            yield "walk", Found(file, function, node.lineno)
    if isinstance(node, ast.Call):
        name, at = _name_of(node.func), Found(file, function, node.lineno)
        if _reads_text(name, node) and not any(word.arg == "errors" for word in node.keywords):
            yield "read", at
        if name in ("kill", "killpg") and (isinstance(node.func, ast.Name) or _is_os(node.func)):
            yield "pid", at
        if name in ("glob", "rglob") and any(_is_text(each, lambda text: "**" in text) for each in node.args):
            yield "walk", at
    # Also where it is passed on to a thread.
    if isinstance(node, ast.Attribute) and node.attr in WALKERS:
        yield "walk", Found(file, function, node.lineno)
    # The number of a process follows.
    if _is_text(node, lambda text: text.rstrip("/") == "/proc" or text.startswith("/proc/%")):
        yield "pid", Found(file, function, getattr(node, "lineno", 0))
    for child in ast.iter_child_nodes(node):
        yield from found_in(child, file, function)


def _name_of(called: ast.AST) -> str:
    return getattr(called, "attr", getattr(called, "id", ""))


def _names_in(node: ast.AST) -> set[str]:
    """The names of what a function calls."""
    return {_name_of(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}


def _is_os(called: ast.AST) -> bool:
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "os"


def _is_text(node: ast.AST, holds: Callable[[str], bool]) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and holds(node.value)


def _reads_text(name: str, call: ast.Call) -> bool:
    """Whether a call reads text from a file or a process, and says nothing about errors without a keyword."""
    words = {word.arg: word.value for word in call.keywords}
    if name == "read_text":
        return len(call.args) < 2
    if name in ("run", "Popen", "check_output"):
        return bool(words.keys() & {"text", "encoding", "universal_newlines"})
    if name not in ("open", "fdopen") or _is_os(call.func) != (name == "fdopen"):
        return False
    if isinstance(call.func, ast.Attribute) and name == "open":  # of a path, unless it is a tar's
        mode = call.args[0] if call.args else words.get("mode", ast.Constant("r"))
        is_file = not words.keys() & {"fileobj", "format"}
    else:
        mode = call.args[1] if len(call.args) > 1 else words.get("mode", ast.Constant("r"))
        is_file = True
    return is_file and _is_text(mode, lambda text: "b" not in text and ("r" in text or "+" in text))


@cache
def everything() -> list[tuple[str, Found]]:
    package = ROOT / "src" / "clipper"
    return [
        found
        for file in files()
        for found in found_in(ast.parse(file.read_text()), file.relative_to(package).as_posix())
    ]


@pytest.mark.parametrize(
    ("rule", "allowed", "instead"),
    [
        ("read", READS, "read bytes, or say errors="),
        ("walk", WALKS, "use clipper.base.trees.remove_tree, or walk with descriptors as processes/census.py does"),
        ("pid", PIDS, "use a pidfd, the start time (clipper.base.processes.proc) or a lock"),
    ],
)
def test_what_others_can_write_is_not_trusted(rule: str, allowed: dict[tuple[str, str], str], instead: str) -> None:
    found = [at for name, at in everything() if name == rule]
    wrong = [f"{at.file}:{at.line} in {at.function}" for at in found if (at.file, at.function) not in allowed]
    assert not wrong, f"{instead}; if none of that is needed, enter it here with the reason: {wrong}"
    unused = allowed.keys() - {(at.file, at.function) for at in found}
    assert not unused, f"these exceptions are no longer needed: {sorted(unused)}"


@pytest.mark.parametrize(
    ("code", "rules"),
    [
        ('Path(f"/proc/{pid}/stat").read_text()', ["read", "pid"]),
        ('Path("a").read_text("ascii")', ["read"]),
        ('Path("a").read_text("utf-8", "replace"); Path("a").read_text(errors="replace")', []),
        ('open("a"); path.open("r+"); os.fdopen(3); path.open(newline="")', ["read"] * 4),
        ('open("a", "rb"); path.open("ab"); os.fdopen(3, "w"); os.open(a, os.O_RDONLY); open(a, errors="replace")', []),
        ("subprocess.run(a, text=True); Popen(a, encoding='utf-8'); subprocess.run(a); uvloop.run(a)", ["read"] * 2),
        ("asyncio.to_thread(shutil.rmtree, a); os.fwalk(a)", ["walk", "walk"]),
        ("def size(path): return sum(size(each) for each in path.iterdir())", ["walk"]),
        ("def size(path): return sum(each.size for each in path.iterdir())", []),
        ('path.glob("**/*.py"); path.glob("*.py")', ["walk"]),
        ("os.kill(pid, 0); process.kill(); kill(pid, 9)", ["pid", "pid"]),
        ('Path("/proc") / str(pid); "/proc/%d/stat" % pid; os.scandir("/proc")', ["pid"] * 3),
        ('Path("/proc/self/stat").read_bytes()', []),
    ],
)
def test_each_rule_finds_what_it_is_about(code: str, rules: list[str]) -> None:
    assert [name for name, _ in found_in(ast.parse(code), "a.py")] == rules
