"""What others can write is read as bytes, or with its errors said; two more rules of that kind.

A name, a file or a folder that another user or a model has made may hold anything. So text is read from it only where
it is said what happens to bytes that are no text. A tree of it is not walked by what recurses, or by paths, which the
kernel bounds. A process id alone is no proof: it passes to other processes. Exceptions are here, each with its reason.
"""

import ast
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from tests.architecture.source_tree import ROOT, files

# Calls of ``read_text`` that say nothing about errors: file and function, to why that does no harm.
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
    ("supervisor/registry/shared.py", "read"): "the server's own, in its home, where nobody else may write",
    ("model/frameworks/caffe.py", "load"): "the model's own process reads it, and fails as on any of its files",
    (
        "model/frameworks/spark.py",
        "_class_name",
    ): "the model's own process reads it, and fails as on any of its files",
    ("settings/texts.py", "text_of"): "a file of the command's own user",
    ("supervisor/config.py", "_store_address"): "a file of the operator's",
    ("supervisor/folders.py", "make_id"): "the server's own, in its home, where nobody else may write",
}
# What recurses with the depth of a tree, or builds paths.
WALKERS = {"walk", "fwalk", "rmtree", "rglob", "copytree"}
WALKS = {
    ("cli/manifest_facts.py", "write_artifact"): "an artifact, whose depth was bounded when it was unpacked",
    ("client/packaging/addresses.py", "digest_of"): "fetched by this user into a folder of this user's",
    ("client/packaging/addresses.py", "pickle_warning"): "the same",
    ("base/build.py", "build_id"): "Clipper's own code",
    ("api/dashboard/files.py", "read_files"): "comes with Clipper",
    ("supervisor/managers/docker/images.py", "_runtime_files"): "Clipper's own code",
    ("client/packaging/code.py", "_python_files"): "a folder of the command's own user",
    ("client/packaging/models.py", "_members"): "a folder of the command's own user",
    ("client/packaging/needs.py", "_files"): "an artifact, whose depth was bounded when it was unpacked",
    ("supervisor/artifacts/unpacking.py", "_seal"): "just unpacked, from members whose depth is bounded",
}
# What looks a process up by its number, or sends a signal to one.
PIDS = {
    ("base/oom.py", "end_first"): "of itself, or of a child that has not been reaped",
    ("base/processes/proc.py", "stat_fields"): "the start time is among what it reads",
    ("base/processes/proc.py", "variable"): "its callers hold a pidfd, compare the start time, or only count",
    ("base/processes/proc.py", "program_of"): "nothing is done to the process",
    ("base/processes/proc.py", "user_of"): "its callers hold a pidfd, compare the start time, or only count",
    ("base/processes/proc.py", "parent_of"): "nothing is done to the process",
    ("base/processes/proc.py", "proportional_bytes"): "only counts",
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
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        at = Found(file, function, node.lineno)
        if name == "read_text" and len(node.args) < 2 and not any(word.arg == "errors" for word in node.keywords):
            yield "read", at
        if name in ("kill", "killpg") and isinstance(node.func, ast.Attribute) and _is(node.func.value, "os"):
            yield "pid", at
    # Also where it is passed on to a thread.
    if isinstance(node, ast.Attribute) and node.attr in WALKERS:
        yield "walk", Found(file, function, node.lineno)
    # The number of a process follows.
    if isinstance(node, ast.JoinedStr) and any(_is_proc(value) for value in node.values):
        yield "pid", Found(file, function, node.lineno)
    for child in ast.iter_child_nodes(node):
        yield from found_in(child, file, function)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_proc(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == "/proc/"


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
        ("asyncio.to_thread(shutil.rmtree, a); os.fwalk(a)", ["walk", "walk"]),
        ("os.kill(pid, 0); process.kill()", ["pid"]),
        ('Path("/proc/self/stat").read_bytes()', []),
    ],
)
def test_each_rule_finds_what_it_is_about(code: str, rules: list[str]) -> None:
    assert [name for name, _ in found_in(ast.parse(code), "a.py")] == rules
