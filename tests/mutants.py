"""``python -m tests.mutants``: whether the tests of what decides notice when the code is wrong.

A mutant is a module with one change that should matter: a comparison the other way round, a statement left out. Each
is tried against the tests of its own folder alone, so that a survivor says what those do not see. The changes are
Cosmic Ray's operators, and one of our own; ``mutant_trials`` tries a mutant in a fork, where Cosmic Ray's own runner
would start a shell, a Python and a database entry for each.

A sample at random, the same for the same seed, taken from all folders in turn until the time is over.
"""

import argparse
import ast
import random
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators import operator
from cosmic_ray.plugins import get_operator

from tests.mutant_trials import Trials

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/clipper")
# The changes that no test can notice, or should pin, each with the reason.
KNOWN = ROOT / "tests" / "mutants.toml"
SURVIVORS = ROOT / "build" / "mutants.diff"

# The code that decides. A file stands for itself, a folder for all in it; their tests are in the same place in tests/.
FOLDERS = (
    "supervisor/rollout",
    "worker/abstraction/batching",
    "worker/abstraction/cache",
    "learning/mathematics",
    "learning/policies",
    "worker/selection/feedback",
    "worker/selection/pipeline",
    "cli/capacity",
    "model/protocol",
    "supervisor/managers/reconcile",
    "base/processes/excess.py",
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

    @cached_property
    def code(self) -> str:
        changed = mutate_code(text_of(self.path), made(self.operator), self.occurrence)
        assert changed is not None
        return str(changed)

    @cached_property
    def diff(self) -> list[str]:
        """Its lines, before and after, each with a sign before it."""
        return list(unified_diff(text_of(self.path).splitlines(), self.code.splitlines(), lineterm="", n=0))[3:]

    def known(self, changes: Sequence[dict[str, str]]) -> bool:
        """Whether it is one of ``changes``: these quote the code, since lines move."""
        before, after = (" ".join(row[1:].strip() for row in self.diff if row[0] == sign) for sign in "-+")
        module = str(self.path.relative_to(SOURCE))
        return any((one["module"], one["before"], one["after"]) == (module, before, after) for one in changes)


@cache
def text_of(path: Path) -> str:
    """As it was at the start: a survivor's test may be written while others are tried."""
    return (ROOT / path).read_text()


def made(name: str) -> operator.Operator:
    return LeaveOut() if name == LeaveOut.__name__ else get_operator(f"core/{name}")()


def mutants_of(folder: str, path: Path) -> list[Mutant]:
    """All of a module."""
    tree, found = get_ast(text_of(path)), []
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
    # The star before parameters that have to be named is no multiplication.
    is_star = node.type == "operator" and node.parent.type in ("parameters", "param", "lambdef")
    return node.search_ancestor("decorator") is None and not is_star


def nodes(node: parso.tree.NodeOrLeaf) -> Iterator[parso.tree.NodeOrLeaf]:
    """In the order in which ``mutate_code`` counts."""
    yield node
    for child in getattr(node, "children", ()):
        yield from nodes(child)


def folder_of(part: str) -> str:
    """The folder of FOLDERS that a part belongs to."""
    return next(folder for folder in FOLDERS if f"{part}/".startswith(f"{folder}/"))


def mutants_in(part: str) -> list[Mutant]:
    """All of a folder, a module, or a line of one: ``supervisor/rollout``, its ``view.py``, ``view.py:17``."""
    name, _, line = part.partition(":")
    path = ROOT / SOURCE / name
    paths = [each.relative_to(ROOT) for each in ([path] if path.suffix else sorted(path.rglob("*.py")))]
    found = [mutant for each in paths for mutant in mutants_of(folder_of(name), each)]
    return [mutant for mutant in found if not line or mutant.line == int(line)]


def in_turns(parts: Sequence[str], rng: random.Random) -> Iterator[Mutant]:
    """One of each part, then the next of each, until there are no more."""
    queues = []
    for part in parts:
        every = mutants_in(part)
        rng.shuffle(every)
        print(f"{part}: {len(every)} mutants", flush=True)
        queues.append(every)
    while any(queues):
        for queue in queues:
            if queue:
                yield queue.pop()


def tests_of(folder: str) -> Path:
    """The folder, or file, of a folder's tests, relative to the root."""
    path = Path("tests") / folder
    return path.parent / f"test_{path.name}" if path.suffix else path


def main() -> None:
    parser = argparse.ArgumentParser(prog="mutants", description="Change the code, and see whether its tests notice.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument(
        "--slowest", type=float, default=2.0, metavar="S", help="leave slower tests out (processor time)"
    )
    parts = f"of {', '.join(FOLDERS)}, or a module or a module's line in one of them: supervisor/rollout/view.py:17"
    parser.add_argument("parts", nargs="*", default=FOLDERS, metavar="PART", help=parts)
    arguments = parser.parse_args()
    for part in arguments.parts:
        name = part.partition(":")[0]
        if not (any(f"{name}/".startswith(f"{one}/") for one in FOLDERS) and (ROOT / SOURCE / name).exists()):
            parser.error(f"{part} is not {parts}")
    print(f"seed {arguments.seed}")
    known = tomllib.loads(KNOWN.read_text())
    waiting = list(in_turns(arguments.parts, random.Random(arguments.seed)))
    folders = sorted({mutant.folder for mutant in waiting}, key=FOLDERS.index)
    outcomes: dict[str, Counter[str]] = {folder: Counter() for folder in folders}
    with tempfile.TemporaryDirectory(prefix="clipper-mutants-") as copy:
        trials = Trials(
            ROOT, Path(copy).resolve(), {folder: str(tests_of(folder)) for folder in folders}, arguments.slowest
        )
        for folder in folders:
            print(f"{folder}: its tests take {trials.cpu_s(folder):.0f} s of a processor", flush=True)
        print("left out, as too slow:", *trials.left_out or ["none"], sep="\n    ", flush=True)
        end_s = time.monotonic() + 60 * arguments.minutes
        SURVIVORS.parent.mkdir(exist_ok=True)
        # Ctrl-C ends it early, with what is known by then.
        with SURVIVORS.open("w") as survivors, suppress(KeyboardInterrupt):
            for mutant in waiting:
                if time.monotonic() >= end_s:
                    break
                before_s = time.monotonic()
                outcome = outcome_of(mutant, trials, known)
                outcomes[mutant.folder][outcome] += 1
                title = f"{mutant.path.relative_to(SOURCE)}:{mutant.line} ({mutant.operator})"
                print(f"{outcome:9} {title} {time.monotonic() - before_s:.2f} s", flush=True)
                if outcome == "survived":
                    print(*(f"    {row}" for row in mutant.diff), sep="\n", flush=True)
                    print(title, *mutant.diff, "", sep="\n", file=survivors, flush=True)
    show(outcomes)


def outcome_of(mutant: Mutant, trials: Trials, known: dict[str, Any]) -> str:
    for kind in ("equal", "tuned"):
        if mutant.known(known.get(kind, ())):
            return kind
    return trials.outcome(mutant.folder, mutant.path, text_of(mutant.path), mutant.code)


def show(outcomes: dict[str, Counter[str]]) -> None:
    columns = ("killed", "timed out", "survived", "equal", "tuned")
    print(f"\n{'':28}" + "".join(f"{column:>11}" for column in columns) + f"{'noticed':>11}")
    for folder, counts in {**outcomes, "all": sum(outcomes.values(), Counter())}.items():
        noticed = counts["killed"] + counts["timed out"]
        judged = noticed + counts["survived"]
        share = f"{100 * noticed / judged:.0f} %" if judged else "-"
        print(f"{folder:28}" + "".join(f"{counts[column]:11}" for column in columns) + f"{share:>11}")


if __name__ == "__main__":
    sys.exit(main())
