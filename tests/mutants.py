"""``python -m mutants``: whether the tests of what decides notice when the code is wrong.

A mutant is a module with one change that should matter: a comparison the other way round, a statement left out. Each
is tried against the tests of its own folder alone, so that a survivor says what those do not see. The changes are
Cosmic Ray's operators, and one of our own; its own runner starts a shell, a Python and a database entry for each, where
here a process that has imported what is not Clipper's forks.

A sample at random, the same for the same seed, taken from all folders in turn until the time is over.
"""

import argparse
import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import hypothesis.stateful  # noqa: F401 - as all below: to be there in what is forked
import msgspec.json  # noqa: F401
import numpy.testing  # noqa: F401
import parso
import pytest
import scipy.stats  # noqa: F401
import uvicorn  # noqa: F401
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators import operator
from cosmic_ray.plugins import get_operator
from litestar import Litestar  # noqa: F401

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/clipper")

# What decides. A file stands for itself, a folder for all that is in it; its tests are in the same place below tests/.
FOLDERS = (
    "rollout",
    "abstraction/batching",
    "abstraction/cache",
    "selection/learning",
    "selection/policies",
    "containers/protocol",
    "managers/reconcile",
    "processes/excess.py",
)

# For each operator the two that are nearest to it: the bound itself, and the other side. Others are noticed by all.
_NEAR = {
    "Comparison": ("Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is"),
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul",
    "Unary": "USub_UAdd Delete_Not",
}
OPERATORS = (
    *(f"Replace{kind}Operator_{pair}" for kind, pairs in _NEAR.items() for pair in pairs.split()),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
)

# A mutant may take as much longer than the code as it is, in processor time; what does not end is noticed as well.
TIMES_LONGER, AT_LEAST_S = 3.0, 10.0
# On a machine that others use, too.
WALL_PER_CPU = 10.0


class LeaveOut(operator.Operator):  # type: ignore[misc]
    """Leaves a statement of a function out."""

    LEFT_OUT = frozenset({"expr_stmt", "atom_expr", "return_stmt", "raise_stmt", "del_stmt", "await_expr"})

    def mutation_positions(self, node: parso.tree.NodeOrLeaf) -> Iterator[object]:
        if node.type != "simple_stmt" or node.children[0].type not in self.LEFT_OUT:
            return
        if node.search_ancestor("funcdef", "async_funcdef") is not None:
            yield node.start_pos, node.children[0].end_pos

    def mutate(self, node: parso.tree.NodeOrLeaf, _index: int) -> parso.tree.NodeOrLeaf:
        leaf = node.get_first_leaf()
        node.children[0] = parso.parse(f"{leaf.prefix}pass")
        return node

    @classmethod
    def examples(cls) -> Sequence[object]:
        return ()


@dataclass(frozen=True)
class Mutant:
    """One change of a module; ``path`` is relative to the root, ``occurrence`` counts an operator's places in it."""

    folder: str
    path: Path
    line: int
    operator: str
    occurrence: int

    @property
    def code(self) -> str:
        changed = mutate_code((ROOT / self.path).read_text(), made(self.operator), self.occurrence)
        assert changed is not None
        return str(changed)

    @property
    def change(self) -> str:
        """Its lines, before and after."""
        before = (ROOT / self.path).read_text().splitlines()
        return "\n".join(list(unified_diff(before, self.code.splitlines(), lineterm="", n=0))[3:])


def made(name: str) -> operator.Operator:
    return LeaveOut() if name == LeaveOut.__name__ else get_operator(f"core/{name}")()


def mutants_of(folder: str, path: Path) -> list[Mutant]:
    """All of a module."""
    tree, found = get_ast((ROOT / path).read_text()), []
    for name in (*OPERATORS, LeaveOut.__name__):
        one = made(name)
        places = ((node, start) for node in nodes(tree) for start, _ in one.mutation_positions(node))
        found += [
            Mutant(folder, path, line, name, number) for number, (node, (line, _)) in enumerate(places) if matters(node)
        ]
    return found


def matters(node: parso.tree.NodeOrLeaf) -> bool:
    """Whether a change there may change anything: not ``frozen=True`` or ``slots=True``, and not 1e300 by 1."""
    if node.type == "number" and (value := ast.literal_eval(node.value)) + 1 == value:
        return False
    return node.search_ancestor("decorator") is None


def nodes(node: parso.tree.NodeOrLeaf) -> Iterator[parso.tree.NodeOrLeaf]:
    """In the order in which ``mutate_code`` counts."""
    yield node
    for child in getattr(node, "children", ()):
        yield from nodes(child)


def modules(folder: str) -> list[Path]:
    path = SOURCE / folder
    found = [path] if path.suffix else sorted((ROOT / path).rglob("*.py"))
    return [each.relative_to(ROOT) if each.is_absolute() else each for each in found]


def tests_of(folder: str, module: Path | None = None) -> list[str]:
    """The tests of a folder, that of the module first: most mutants end there."""
    place = ROOT / "tests" / folder
    if place.suffix:
        return [str((place.parent / f"test_{place.name}").relative_to(ROOT))]
    every = sorted(place.rglob("test_*.py"))
    own = f"test_{module.stem}" if module is not None else ""
    every.sort(key=lambda path: not path.stem.startswith(own))
    return [str(path.relative_to(ROOT)) for path in every]


class Trial:
    """A copy of the tree, in which one module at a time is another."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        # New and changed files, too, as they are.
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        self.cpu_s: dict[str, float] = {}

    def measure(self, folder: str) -> float:
        """The processor time of a folder's tests on the code as it is.

        Raises:
            SystemExit: they fail.
        """
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if (ended := self._run(tests_of(folder), 3600.0)) != "passed":
            log = (self._copy / "log").read_text()
            sys.exit(f"the tests of {folder} have to pass on the code as it is: {ended}\n{log[-3000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s[folder] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return self.cpu_s[folder]

    def survives(self, mutant: Mutant) -> bool:
        path = self._copy / mutant.path
        path.write_text(mutant.code)
        try:
            limit_s = TIMES_LONGER * self.cpu_s[mutant.folder] + AT_LEAST_S
            return self._run(tests_of(mutant.folder, mutant.path), limit_s) == "passed"
        finally:
            shutil.copy2(ROOT / mutant.path, path)

    def _run(self, tests: Sequence[str], cpu_s: float) -> str:
        pid = os.fork()
        if pid == 0:
            self._be_tested(tests, cpu_s)
        end_s = time.monotonic() + cpu_s * WALL_PER_CPU
        while not (found := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end_s:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "hung"
            time.sleep(0.02)
        code = os.waitstatus_to_exitcode(found[1])
        # What it started is of its group.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return "passed" if code == 0 else f"exit code {code}"

    def _be_tested(self, tests: Sequence[str], cpu_s: float) -> None:
        """In the child; does not return."""
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
            log = os.open(self._copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self._copy)
            # Before where it is installed from; and no module of it is imported yet.
            source = str(self._copy / "src")
            sys.path[:] = [source, *(each for each in sys.path if not each.startswith(str(ROOT / "tests")))]
            os.environ["PYTHONPATH"] = source
            sys.dont_write_bytecode = True
            # Plugins of what is imported already; their own asserts need no rewriting.
            quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", *quiet, *tests])
        except BaseException:  # noqa: BLE001 - this is not the process that would show it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(code))


def in_turns(folders: Sequence[str], rng: random.Random) -> Iterator[Mutant]:
    """One of each folder, then the next of each, until there are no more."""
    queues = []
    for folder in folders:
        every = [mutant for path in modules(folder) for mutant in mutants_of(folder, path)]
        rng.shuffle(every)
        print(f"{folder}: {len(every)} mutants", flush=True)
        queues.append(every)
    while any(queues):
        for queue in queues:
            if queue:
                yield queue.pop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="mutants", description="Change the code, and see whether its tests notice.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("folders", nargs="*", default=FOLDERS, metavar="FOLDER", help=f"of {', '.join(FOLDERS)}")
    arguments = parser.parse_args()
    unknown = set(arguments.folders) - set(FOLDERS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))} is not one of {', '.join(FOLDERS)}")
    end_s = time.monotonic() + 60 * arguments.minutes
    print(f"seed {arguments.seed}")
    tried, survived = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="clipper-mutants-") as copy:
        trial = Trial(Path(copy))
        waiting = list(in_turns(arguments.folders, random.Random(arguments.seed)))
        for folder in arguments.folders:
            print(f"{folder}: its tests take {trial.measure(folder):.0f} s of a processor", flush=True)
        # Ctrl-C ends it early, with what is known by then.
        with suppress(KeyboardInterrupt):
            for mutant in waiting:
                if time.monotonic() >= end_s:
                    break
                survives = trial.survives(mutant)
                tried[mutant.folder] += 1
                if survives:
                    survived[mutant.folder] += 1
                    print(f"survives: {mutant.path}:{mutant.line} ({mutant.operator})\n{mutant.change}", flush=True)
    for folder in arguments.folders:
        noticed = tried[folder] - survived[folder]
        share = f"{100 * noticed / tried[folder]:.0f} %" if tried[folder] else "-"
        print(f"{folder:24} {noticed:4} of {tried[folder]:4} noticed  {share}")


if __name__ == "__main__":
    main()
