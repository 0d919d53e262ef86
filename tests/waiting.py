"""Waiting for a condition: the one way in which a test waits for what another process, thread or task does.

Both forms poll. They give up at once when ``failed`` says that what is awaited can no longer come, and their message
holds the condition's own text and what its parts were when the wait ended.
"""

import ast
import asyncio
import inspect
import linecache
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

# Only a hang meets it, also where a process is given a twentieth of a processor; below what pytest gives a test.
TIMEOUT_S = 150.0
POLL_S = 0.005
# A loop that only the test runs does what it has to do between two looks.
LOOP_POLL_S = 0.001
# The longer a wait has been, the rarer the looks: each takes time from the processes that are waited for. So a wait
# takes a tenth longer at most.
PAUSE_SHARE, MAX_PAUSE_S = 0.1, 0.03
# Of one value in a message: a log's end says why, and the start of anything else what it is.
MAX_SHOWN = 4000

T = TypeVar("T")


def until(
    condition: Callable[[], T | None], *, failed: Callable[[], object] | None = None, timeout_s: float = TIMEOUT_S
) -> T:
    """Wait until a condition holds.

    Args:
        failed: what shows that the condition can no longer come true, e.g. the log of a process that ended; falsy as
            long as it still may.

    Returns:
        What the condition gave, which is truthy.

    Raises:
        AssertionError: it cannot come true, or did not within ``timeout_s``.
    """
    wait = _Wait(condition, failed, timeout_s)
    while not (value := wait.look()):
        time.sleep(wait.pause_s(POLL_S))
    return value


async def until_async(
    condition: Callable[[], T | None], *, failed: Callable[[], object] | None = None, timeout_s: float = TIMEOUT_S
) -> T:
    """``until`` for a coroutine, whose loop runs meanwhile. The time is the machine's, not a moved loop's."""
    wait = _Wait(condition, failed, timeout_s)
    while not (value := wait.look()):
        await asyncio.sleep(wait.pause_s(LOOP_POLL_S))
    return value


class _Wait(Generic[T]):
    def __init__(
        self, condition: Callable[[], T | None], failed: Callable[[], object] | None, timeout_s: float
    ) -> None:
        self._condition, self._failed = condition, failed
        self._timeout_s = timeout_s
        self._began_s = time.monotonic()
        self._end_s = self._began_s + timeout_s

    def pause_s(self, least_s: float) -> float:
        """How long to wait until the next look."""
        return min(max(least_s, PAUSE_SHARE * (time.monotonic() - self._began_s)), MAX_PAUSE_S)

    def look(self) -> T | None:
        """The present result of the condition.

        Raises:
            AssertionError: there is nothing left to wait for.
        """
        # Whether time is up is asked before the condition: a wait that did not run for long looks once more.
        is_late = time.monotonic() >= self._end_s
        why = self._failed() if self._failed is not None else None
        # After a failure, too: it may have come true just before, as for a process that does what it should and ends.
        value = self._condition()
        if value:
            return value
        if why:
            raise AssertionError(f"no longer to be expected: {described(self._condition, value)}\nfor: {_shown(why)}")
        if is_late:
            raise AssertionError(f"not within {self._timeout_s:g} s: {described(self._condition, value)}")
        return value


def described(condition: Callable[[], object], value: object) -> str:
    """A condition's text, what it gave, and what the parts of it that a reader would ask for are now."""
    body = _body(condition)
    if body is None:
        return f"{getattr(condition, '__qualname__', repr(condition))}\nwhich gave: {_shown(value)}"
    lines = [f"{ast.unparse(body)}\nwhich gave: {_shown(value)}"]
    names = {**getattr(condition, "__globals__", {}), **_locals(condition)}
    for part in dict.fromkeys(map(ast.unparse, _parts(body))):
        try:
            lines.append(f"{part}: {_shown(eval(part, dict(names)))}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            lines.append(f"{part} raises {error!r}")
    return "\n".join(lines)


def _body(condition: Callable[[], object]) -> ast.expr | None:
    """The expression of a lambda; None of anything else, and where its source is not to be had."""
    code = getattr(condition, "__code__", None)
    if code is None or code.co_name != "<lambda>":
        return None
    tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    spans = [
        (line, column)
        for line, _, column, end in code.co_positions()
        if line is not None and column is not None and column != end
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            body = node.body
            start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
            if spans and all(start <= span < end for span in spans if span != (node.lineno, node.col_offset)):
                return body
    return None


def _parts(body: ast.expr) -> Iterator[ast.expr]:
    """The operands of a comparison, of ``and``, ``or`` and ``not``, and the argument of ``len``; no constants."""
    match body:
        case ast.BoolOp(values=joined):
            operands = joined
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            operands = [operand]
        case ast.Compare(left=left, comparators=comparators):
            operands = [left, *comparators]
        case ast.Call(func=ast.Name("len"), args=operands):
            pass
        case _:
            return
    for operand in operands:
        if isinstance(operand, ast.Constant):
            continue
        if not isinstance(operand, ast.BoolOp | ast.UnaryOp | ast.Compare):
            yield operand
        yield from _parts(operand)


def _locals(condition: Callable[[], object]) -> dict[str, Any]:
    """The variables that a function closes over, and its arguments' defaults."""
    names = dict(inspect.getclosurevars(condition).nonlocals)
    for name, parameter in inspect.signature(condition).parameters.items():
        names[name] = parameter.default
    return names


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= MAX_SHOWN:
        return text
    return f"…{text[-MAX_SHOWN:]}" if isinstance(value, str) else f"{text[:MAX_SHOWN]}…"
