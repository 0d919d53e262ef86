"""The audit of a release: with a service that knows a weakness, that knows none, and that cannot be reached."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from audit import CLEAN, NOT_DONE, WEAK, verdict

from tests.ports import keep_port
from tests.waiting import TIMEOUT_S

ROOT = Path(__file__).parents[2]
WEAKNESS = {"id": "PYSEC-2026-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "It is weak."}
# As pip-audit has it where the index answers 404 of every package. It then prints "No known vulnerabilities found".
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.4.6)"}
OWN = {"name": "clipper-serving", "skip_reason": "Dependency not found on PyPI and could not be audited"}
SOUND = {"name": "msgspec", "version": "0.22.0", "vulns": []}
WEAK_ONE = {"name": "weak", "version": "1.0", "vulns": [WEAKNESS]}


def test_packages_that_were_asked_about_are_told_from_those_that_were_not() -> None:
    assert verdict([SOUND, OWN]) == (CLEAN, ["pip-audit: asked about 1 packages, no weakness is known"])
    status, (told,) = verdict([SOUND, OWN, UNKNOWN])
    assert status == NOT_DONE and "NOT done" in told and "1 of 3 packages (numpy)" in told
    assert verdict([OWN])[0] == verdict([])[0] == NOT_DONE
    status, (weakness, told) = verdict([WEAK_ONE, SOUND, UNKNOWN])
    assert status == WEAK and weakness == "weak 1.0: PYSEC-2026-1, mended in 1.1 or 2.0"
    assert told == "pip-audit: 1 known weaknesses; 2 of 3 packages were asked about"


@pytest.fixture(scope="module")
def tool() -> str:
    """The Python of the environment that ``make release`` uses, with the real pip-audit."""
    command = ["sh", "scripts/environment.sh", "release", "requirements/release.txt"]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return f"{made.stdout.strip()}/bin/python"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The installed packages: one, and Clipper."""
    for name in ("some-package", "clipper-serving"):
        folder = tmp_path / "packages" / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return tmp_path / "packages"


@contextmanager
def service(weak: str | None) -> Iterator[str]:
    """A stub of OSV, which knows a weakness of the package ``weak``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known: dict[str, Any] = {}
            if asked["package"]["name"] == weak:
                events = [{"introduced": "0"}, {"fixed": "1.1"}]
                affected = {"package": asked["package"], "ranges": [{"type": "ECOSYSTEM", "events": events}]}
                known = {"vulns": [{"id": "PYSEC-2026-1", "summary": "It is weak.", "affected": [affected]}]}
            body = json.dumps(known).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(tool: str, packages: Path, url: str) -> "subprocess.CompletedProcess[str]":
    options = ["-s", "osv", "--osv-url", url, "--cache-dir", str(packages.parent / "cache")]
    command = [tool, str(ROOT / "scripts/audit.py"), str(packages), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


@pytest.mark.long
def test_the_real_pip_audit_beside_a_service_that_answers_or_does_not(tool: str, packages: Path) -> None:
    with service(weak=None) as url:
        done = audit(tool, packages, url)
        assert done.stdout == "pip-audit: asked about 2 packages, no weakness is known\n", done.stderr
        assert done.returncode == CLEAN
    with service(weak="some-package") as url:
        done = audit(tool, packages, url)
        assert done.returncode == WEAK and "some-package 1.0: PYSEC-2026-1, mended in 1.1" in done.stderr
    with keep_port() as kept:  # nobody listens there
        done = audit(tool, packages, f"http://127.0.0.1:{kept.getsockname()[1]}/")
    assert done.returncode == NOT_DONE and "The audit was NOT done" in done.stderr and done.stdout == ""
