"""docs/logs-and-traces.md: the example that it names, run as it says, and what it says of bounds and keys."""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper.base.log_format import FIELDS, JsonFormatter
from clipper.cli.process import running, wait_until_gone
from clipper.model.protocol.trace import BatchTrace, TraceContext, write_trace
from clipper.model.runtime.trace import tracing
from clipper.worker.telemetry.lines import access_said, slow_said
from clipper.worker.telemetry.request_note import MAX_REQUEST_ID_BYTES, EndedQuery, QueryNote, RequestNote
from clipper.worker.telemetry.trace_context import SpanContext
from tests.otlp_receiver import otlp_receiver
from tests.ports import keep_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logs-and-traces.md").read_text()


def keys_of(section: str) -> set[str]:
    """The keys in a section's first table."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_the_tables_have_the_keys_that_lines_have() -> None:
    span = SpanContext(1, 2)
    note = RequestNote(1.0, "r", "POST", "/a", "127.0.0.1", True, span, 0, "app", 2, 7, "web")
    query = EndedQuery("app", 7, 1.0, 2.0, 0.1, ("m",), 2, "timeout", QueryNote(note, span))
    assert keys_of("The access log") == access_said(note, "200", 2.0, 1, 1)[1].keys()
    assert keys_of("The slow-query log") == slow_said(query, 1)[1].keys()
    record = logging.LogRecord("clipper", logging.INFO, "", 1, "m", (), None)
    assert keys_of("Logs") == {*json.loads(JsonFormatter().format(record)), *FIELDS, "exception"}


def test_what_the_page_says_of_bounds() -> None:
    assert f"1 to {MAX_REQUEST_ID_BYTES} characters" in PAGE


def test_the_models_own_span_is_sent_with_those_of_its_batch_alone() -> None:
    block = PAGE.split("### A model's own spans")[1].split("```python\n")[1].split("```")[0]
    batch = TraceContext(f"00-{1:032x}-{2:016x}-01")
    with otlp_receiver() as receiver:
        model: dict[str, Any] = {}
        exec(block.replace("http://localhost:4318", receiver.url), model)
        inputs = np.ones((2, 3))
        assert model["predict"](inputs) == [3.0, 3.0]
        assert tracing(model["predict"], write_trace(BatchTrace(batch, (batch,))))(inputs) == [3.0, 3.0]
        model["provider"].shutdown()
        (span,) = receiver.spans
        assert (span.name, span.trace_id[-1], span.parent_span_id[-1]) == ("look up features", 1, 2)


def is_listening(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    if server := running(home):
        os.kill(server.pid, signal.SIGTERM)
        wait_until_gone(home, server.pid)


@pytest.mark.long
def test_the_example_prints_a_trace(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    shutil.copytree(ROOT / "examples" / "traces", folder)
    block = PAGE.split("### An example")[1].split("```sh\n")[1].split("```")[0]
    commands = [shlex.split(line) for line in block.splitlines()]
    assert commands[0] == ["cd", "examples/traces"] and commands[1] == ["python", "receiver.py", "4318", "&"]
    environment = {**os.environ, "CLIPPER_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    printed = tmp_path / "printed"
    with keep_port() as kept, printed.open("wb") as output, ExitStack() as stack:
        port = str(kept.getsockname()[1])
        receiver = subprocess.Popen([sys.executable, "receiver.py", port], cwd=folder, stdout=output)
        stack.callback(receiver.wait)
        stack.callback(receiver.kill)
        until(lambda: is_listening(kept.getsockname()), failed=lambda: receiver.poll() is not None)
        for words in commands[2:]:
            # Only what a reader would change is changed: the ports.
            own = [word.replace("4318", port) for word in words[1:]]
            own += ["--query-port", "0", "--management-port", "0"] if own[0] == "start" else []
            command = [str(Path(sys.executable).parent / words[0]), *own]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: "compute sum" in printed.read_text(), failed=lambda: receiver.poll() is not None)
    # As the page shows it, but for numbers.
    shown = PAGE.split("The receiver prints")[1].split("```text\n")[1].split("```")[0]
    assert re.sub(r"[0-9a-f]{32}|[0-9.]+ ms| +", " ", printed.read_text()).split() == (
        re.sub(r"[0-9a-f]{32}|[0-9.]+ ms| +", " ", shown).split()
    )
