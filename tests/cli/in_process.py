"""Commands in the test's own process, against the management API on a real socket."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


def usage_error(run: Run, arguments: str) -> str:
    """The error of a command that is used wrongly, without its frame."""
    wrong = run(*arguments.split())
    assert wrong.status == 2
    return " ".join(wrong.err.replace("│", " ").split())
