"""Real shells on a terminal of their own, to which a test types."""

import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.waiting import TIMEOUT_S

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x07")
_READ_BYTES = 65536


class Shell:
    """Its output so far is ``shown``, without the terminal's escapes."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until_shown(self, text: str) -> str:
        """Wait for a text, and return what came before it, since the last one that was waited for."""
        while text not in self.shown:
            readable, _, _ = select.select([self._terminal], [], [], TIMEOUT_S)
            assert readable, f"{text!r} does not come: {self.shown!r}"
            self.shown += _ESCAPES.sub("", os.read(self._terminal, _READ_BYTES).decode(errors="replace"))
        before, _, self.shown = self.shown.partition(text)
        return before


@contextmanager
def running(command: list[str], environ: Mapping[str, str]) -> Iterator[Shell]:
    ours, its = pty.openpty()
    # A dumb terminal is not drawn on; the shell's own line editing works on it all the same.
    environ = {**environ, "TERM": "dumb", "COLUMNS": "200", "PS1": "ready> ", "HISTFILE": ""}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environ, start_new_session=True) as process:
        os.close(its)
        try:
            yield Shell(ours)
        finally:
            process.kill()
            os.close(ours)
