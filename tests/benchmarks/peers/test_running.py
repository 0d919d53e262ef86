"""A peer is started, checked, loaded without waiting, and ended with all that it has started."""

import os
from pathlib import Path

import pytest

from benchmarks.peers.forms import INPUT
from benchmarks.peers.processes import cpu_s, is_running, processes_of, proportional_mb
from benchmarks.peers.rounds import open_loop
from benchmarks.peers.running import PeerFailed, running
from benchmarks.peers.table import Peer
from benchmarks.peers.tasks import TASKS
from clipper.cli.load import sender as senders
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.long

SERVER = """
import http.server, json, os, subprocess, sys

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"label": sum(body["input"]) + float(os.environ["OFF"])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_): ...

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def peer(folder: Path, off: str) -> Peer:
    (folder / "server.py").write_text(SERVER)
    return Peer(None, "clipper-serving", f"{{python}} {folder}/server.py", INPUT, "/", {"OFF": off})


def test_a_peer_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may not run the sender for longer than a query may be behind.
    monkeypatch.setattr(senders, "MAX_BEHIND_S", TIMEOUT_S)
    with running("own", peer(tmp_path, "0"), TASKS["sum"]) as server:
        processes = server.processes()
        # The child has another environment, and is found by whose child it is.
        assert len(processes) == 2
        assert os.getpid() not in processes
        assert all(seconds_s >= 0 for seconds_s in cpu_s(processes).values())
        assert proportional_mb(processes) > 5
        opened = open_loop(server, rate_per_s=50, seconds=0.5, slo_ms=60_000)
        assert opened.in_time == 1.0
    assert not processes_of(server.mark)
    assert not any(is_running(pid) for pid in processes)


def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerFailed, match="64 of 64 answers are wrong"),
        running("own", peer(tmp_path, "1"), TASKS["sum"]),
    ):
        pass


def test_one_that_does_not_start_shows_its_log() -> None:
    broken = Peer(None, "clipper-serving", "{python} {SCRATCH}/none.py", INPUT, "/")
    with (
        pytest.raises(PeerFailed, match=r"(?s)broken did not start.*can't open file"),
        running("broken", broken, TASKS["sum"]),
    ):
        pass


def test_a_process_that_has_ended_has_taken_nothing() -> None:
    assert cpu_s([os.getpid()]).keys() == {os.getpid()}
    assert cpu_s([2**22 + 1]) == {}
    assert is_running(os.getpid())
    assert not is_running(2**22 + 1)
