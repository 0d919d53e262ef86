"""Tries mutants: a process that has imported and collected all tests forks, changes a function, and runs tests.

A mutant of a function needs no new import: the fork gives the function the mutant's code, and runs the tests that
called it on the code as it is, the fastest first, until one fails. So most mutants cost some hundredths of a second. A
mutant of what runs on import, such as a constant, is tried in a fork that has imported nothing of Clipper.

A test's limit is its own processor time, so a busy machine changes no outcome.
"""

import functools
import gc
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import CO_OPTIMIZED
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn

import hypothesis.internal.conjecture.engine as conjecture
import hypothesis.stateful  # noqa: F401 - as all below: to be there in what is forked
import msgspec.json  # noqa: F401
import numpy.testing  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import uvicorn  # noqa: F401
from litestar import Litestar  # noqa: F401

# A test of a mutant may take as much longer than on the code as it is, in processor time; then it counts as hanging.
TIMES_LONGER, AT_LEAST_S = 5.0, 2.0
# Imports of a fresh process, on top of that.
IMPORTS_S = 20.0
# A test that uses no processor although it could have one waits for something that never comes. A process that others
# keep from running is runnable, and does not count.
IDLE_S = 60.0
# A mutant that fills a list for ever ends here, before the machine's memory does.
MEMORY = 4 << 30

Seconds = dict[str, float]


class Trials:
    """Tries one mutant after another, on a copy of the tree.

    Args:
        tests: where the tests of each folder are.
        slowest_s: tests that take more processor time are left out.
    """

    def __init__(self, root: Path, copy: Path, tests: Mapping[str, str], slowest_s: float) -> None:
        self._copy, self._tests = copy, tests
        # New and changed files, too, as they are.
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode().split("\0"):
            if name and (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        self._collected, there = Pipe()
        pid = os.fork()
        if pid == 0:
            self._collected.close()
            pytest_in_child(copy, [*dict.fromkeys(tests.values())], Collected(there, slowest_s), write_bytecode=True)
        there.close()
        self._baseline: Seconds = {}
        self._files: Seconds = {}
        # Tests that are too slow.
        self.left_out: list[str] = []
        try:
            self._baseline, self.left_out = self._collected.recv()
        except EOFError:
            log = (copy / "log").read_text()
            sys.exit(f"the tests have to pass on the code as it is\n{log[-3000:]}")
        for test, seconds in self._baseline.items():
            file = test.partition("::")[0]
            self._files[file] = self._files.get(file, 0.0) + seconds

    def cpu_s(self, folder: str) -> float:
        return sum(seconds for file, seconds in self._files.items() if in_place(file, self._tests[folder]))

    def outcome(self, folder: str, path: Path, before: str, code: str) -> str:
        """``killed``, ``survived``, ``timed out``, or ``equal`` if it compiles to the same."""
        changed = self._copy / path
        # The compiled original may look as new as the mutant.
        Path(importlib.util.cache_from_source(str(changed))).unlink(missing_ok=True)
        try:
            changed.write_text(code)
            self._collected.send((str(changed), before, code, self._tests[folder]))
            found: str = self._collected.recv()
            return found if found != "imported" else self._imported(folder, path.stem)
        finally:
            changed.write_text(before)

    def _imported(self, folder: str, module: str) -> str:
        files = [file for file in self._files if in_place(file, self._tests[folder])]
        files.sort(key=lambda file: (not Path(file).stem.startswith(f"test_{module}"), self._files[file]))
        pid = os.fork()
        if pid == 0:
            left_out = [f"--deselect={test}" for test in self.left_out]
            pytest_in_child(self._copy, ["-x", *left_out, *files], Limits(self._baseline))
        return watched(pid)


def in_place(file: str, place: str) -> bool:
    return f"{file}/".startswith(f"{place}/")


class Limits:
    """Limits the processor time of each test; a plugin of a fresh process."""

    def __init__(self, baseline: Seconds) -> None:
        self._baseline = baseline
        limit(IMPORTS_S)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        limit(AT_LEAST_S + TIMES_LONGER * self._baseline.get(nodeid, 1.0))


class Collected:
    """Has all tests collected, and tries one mutant after another in forks; a plugin."""

    def __init__(self, asked: Connection, slowest_s: float) -> None:
        self._asked, self._slowest_s = asked, slowest_s
        self._on_import: set[int] = set()
        # id of a test's function's code -> tests that called it
        self._calls: dict[int, list[str]] = {}
        self._cpu_s: Seconds = {}
        self._items: dict[str, pytest.Item] = {}
        self._functions: dict[tuple[str, CodeType], list[FunctionType]] = {}
        # Results that they keep hide calls.
        self._caches: list[functools._lru_cache_wrapper[Any]] = []
        trace(self._on_import)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        trace(None)
        if session.testsfailed:
            return True
        self._items = {item.nodeid: item for item in session.items}
        gc.unfreeze()
        source = str(Path.cwd() / "src")
        for one in gc.get_objects():
            if type(one) is FunctionType and one.__code__.co_filename.startswith(source):
                self._functions.setdefault((one.__code__.co_filename, one.__code__), []).append(one)
            elif isinstance(one, functools._lru_cache_wrapper) and one.__module__.startswith("clipper."):
                self._caches.append(one)
        gc.collect()
        gc.freeze()
        if not self._measure(session):
            return True
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        self._asked.send((self._cpu_s, [test for test in self._items if test not in self._cpu_s]))
        with suppress(EOFError):
            while True:
                self._asked.send(self._try(session, *self._asked.recv()))
        return True

    def _measure(self, session: pytest.Session) -> bool:
        """Measure each test in forks, so that this process stays as it is. Return whether all pass."""
        tests, done = list(self._items), 0
        of_functions = {id(code) for _, code in self._functions}
        while done < len(tests):
            here, there = Pipe()
            pid = os.fork()
            if pid == 0:
                self._measure_from(tests[done:], of_functions, session, there)
            there.close()
            with suppress(EOFError):
                while True:
                    cpu_s, called = here.recv()
                    self._cpu_s[tests[done]] = cpu_s
                    for each in called:
                        self._calls.setdefault(each, []).append(tests[done])
                    done += 1
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if done < len(tests) and code != -signal.SIGPROF:
                print(f"{tests[done]} fails")
                return False
            # The next one is too slow.
            done += 1
        return True

    def _measure_from(
        self, tests: Sequence[str], of_functions: set[int], session: pytest.Session, results: Connection
    ) -> NoReturn:
        for test in tests:
            for each in self._caches:
                each.cache_clear()
            called: set[int] = set()
            before_s = time.process_time()
            limit(self._slowest_s)
            trace(called)
            run(self._items[test])
            trace(None)
            limit(0.0)
            if session.testsfailed:
                leave(1)
            results.send((time.process_time() - before_s, called & of_functions))
        leave(0)

    def _try(self, session: pytest.Session, path: str, before: str, after: str, place: str) -> str:
        """As ``Trials.outcome``, or ``imported`` if modules have to be imported anew."""
        try:
            old, new = (compile(each, path, "exec", dont_inherit=True) for each in (before, after))
        except SyntaxError:
            return "killed"
        if same(old, new):
            return "equal"
        if not same_on_import(old, new):
            return "imported"
        changes = [
            (one, two) for one, two in zip(functions_of(old), functions_of(new), strict=True) if not same(one, two)
        ]
        if not all((path, one) in self._functions for one, _ in changes):
            return "imported"  # such as a generator of a constant
        loaded = [(function, two) for one, two in changes for function in self._functions[path, one]]
        for function, two in loaded:
            if id(function.__code__) in self._on_import or function.__code__.co_freevars != two.co_freevars:
                return "imported"
        inner = tuple(f"{one.co_qualname}.<locals>." for one, _ in changes)
        if any(file == path and code.co_qualname.startswith(inner) for file, code in self._functions):
            return "imported"
        called = {test for function, _ in loaded for test in self._calls.get(id(function.__code__), ())}
        tests = sorted(
            (test for test in called if in_place(test.partition("::")[0], place)), key=self._cpu_s.__getitem__
        )
        if not tests:
            return "survived"
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for function, two in loaded:
                function.__code__ = two
            for test in tests:
                limit(AT_LEAST_S + TIMES_LONGER * self._cpu_s[test])
                run(self._items[test])
                if session.testsfailed:
                    leave(1)
            leave(0)
        return watched(pid)


def run(item: pytest.Item) -> None:
    """With all that it needs set up, and taken down."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def trace(called: set[int] | None) -> None:
    """Adds to ``called`` the id of the code of each function that is called from now on."""

    def on_call(frame: FrameType, _event: str, _arg: object) -> None:
        assert called is not None
        called.add(id(frame.f_code))

    sys.settrace(on_call if called is not None else None)
    threading.settrace(on_call if called is not None else None)  # type: ignore[arg-type]


def inner_codes(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def functions_of(code: CodeType) -> Iterator[CodeType]:
    """The outermost ones of a module or a class, in order. A class's body is none: it runs once, on import."""
    for each in inner_codes(code):
        if each.co_flags & CO_OPTIMIZED:
            yield each
        else:
            yield from functions_of(each)


def shape(code: CodeType) -> tuple[Any, ...]:
    """The instructions of a code, without its lines and the code compiled in it."""
    consts = [(type(each), repr(each)) for each in code.co_consts if not isinstance(each, CodeType)]
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, consts, names, code.co_flags, code.co_exceptiontable)


def same(one: CodeType, two: CodeType) -> bool:
    inner = inner_codes(one), inner_codes(two)
    return shape(one) == shape(two) and len(inner[0]) == len(inner[1]) and all(map(same, *inner))


def same_on_import(one: CodeType, two: CodeType) -> bool:
    """Whether they differ in functions alone."""
    inner = inner_codes(one), inner_codes(two)
    if shape(one) != shape(two) or len(inner[0]) != len(inner[1]):
        return False
    pairs = zip(*inner, strict=True)
    return all(same_on_import(*pair) for pair in pairs if not pair[0].co_flags & CO_OPTIMIZED)


def limit(cpu_s: float) -> None:
    """Of this process, from now on; SIGPROF ends it."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def watched(pid: int) -> str:
    """Waits until the tests in a process end, and says what came of them."""
    used, idle_since_s, looked_s = -1, time.monotonic(), time.monotonic()
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.01)
        if (now_s := time.monotonic()) - looked_s < 1.0:
            continue
        # State, then user and system time, after the name, which may have spaces in it.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(rest[10]) + int(rest[11])
        # This process may have been stopped itself.
        if state == "R" or ticks != used or now_s - looked_s > 5.0:
            used, idle_since_s = ticks, now_s
        elif now_s - idle_since_s > IDLE_S:
            os.kill(pid, signal.SIGKILL)
        looked_s = now_s
    # Processes that it started are of its group.
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(found[1])
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return "timed out"
    return "killed" if code else "survived"


def leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def pytest_in_child(copy: Path, arguments: Sequence[str], plugin: object, write_bytecode: bool = False) -> NoReturn:
    code = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(copy)
        # Before where it is installed from; and no module of it is imported yet. The copy has tests of its own.
        source = str(copy / "src")
        sys.path[:] = [source, *(each for each in sys.path if each not in ("", str(Path(__file__).parents[1])))]
        for name in [each for each in sys.modules if each.partition(".")[0] == "tests"]:
            del sys.modules[name]
        os.environ["PYTHONPATH"] = source
        sys.dont_write_bytecode = not write_bytecode
        # One example that fails is enough.
        conjecture.ConjectureRunner.shrink_interesting_examples = lambda self: None  # type: ignore[attr-defined]
        # Plugins of what is imported already; their own asserts need no rewriting.
        quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", *quiet)
        code = int(pytest.main([*options, *arguments], plugins=[plugin]))
    except BaseException:  # noqa: BLE001 - this is not the process that would show it
        traceback.print_exc()
    finally:
        leave(code)
