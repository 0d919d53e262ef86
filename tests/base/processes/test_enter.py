import os
import subprocess
import sys
from pathlib import Path

from clipper.base.processes.enter import entering
from clipper.base.run_as import RunAs


def test_another_users_container_imports_nothing_that_others_could_plant(tmp_path: Path) -> None:
    for name in ("os.py", "msgspec.py", "clipper/__init__.py", "usercustomize.py", "sitecustomize.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('it was imported')")
    own = [sys.executable, "-c", "print(open('/proc/self/status').read())"]
    argv = entering(RunAs("", os.geteuid(), os.getegid()), None, None, own)
    assert argv[1:4] == ["-s", "-P", "-m"]
    if os.geteuid() == 0:
        home = {"HOME": str(tmp_path)}
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, env=home)
        assert "NoNewPrivs" in done.stdout and "it was imported" not in done.stderr
        missing = entering(RunAs("", 0, 0), None, None, ["/nowhere/python"])
        done = subprocess.run(missing, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.startswith("clipper: it cannot be started with /nowhere/python")
