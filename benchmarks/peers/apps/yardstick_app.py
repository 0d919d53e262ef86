"""The yardstick: its web process, with a model process behind it that serves the peers' model."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

APPS = Path(__file__).parent
FRONT = APPS.parents[1] / "yardstick" / "front.py"


def main():
    path = Path(tempfile.mkdtemp(dir=os.environ["SCRATCH"])) / "model.sock"
    with subprocess.Popen([sys.executable, str(APPS / "yardstick_model.py"), str(path)]) as model:
        while not path.exists():
            if model.poll() is not None:
                sys.exit("the yardstick's model has ended")
            time.sleep(0.01)
        front = [sys.executable, str(FRONT), "--port", os.environ["PORT"], "--socket", str(path)]
        sys.exit(subprocess.run(front, check=False).returncode)


if __name__ == "__main__":
    main()
