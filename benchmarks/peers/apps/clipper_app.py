"""A Clipper with one model and one application, or one pipeline, made by its commands.

It goes without its cache, unless ``CACHE`` is set: the load sends bodies again, and no peer has one. ``DEPLOY`` has
further options of the deployment, as a list in JSON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

APPS = Path(__file__).parent
COMMAND = str(Path(sys.executable).parent / "clipper")


def main():
    environment = {**os.environ, "CLIPPER_HOME": f"{os.environ['SCRATCH']}/home"}
    environment.pop("PYTHONPATH")
    server = [COMMAND, "start", "--foreground", "--query-port", os.environ["PORT"], "--management-port", "0"]
    # Two of them run side by side, so the port is not the usual one.
    server += ["--grpc-port", os.environ["SECOND_PORT"] if "GRPC" in os.environ else "off"]
    workers = ["--workers", os.environ["WORKERS"]] if "WORKERS" in os.environ else []

    def run(*command):
        subprocess.run([COMMAND, *command], env=environment, cwd=APPS, check=True)

    with subprocess.Popen([*server, *workers], env=environment) as process:
        signal.signal(signal.SIGINT, lambda *_: process.terminate())
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while subprocess.run([COMMAND, "status"], env=environment, capture_output=True, check=False).returncode:
            if process.poll() is not None:
                sys.exit("clipper start has ended")
            time.sleep(0.1)
        pipeline = APPS / f"{os.environ['TASK']}.yaml"
        if pipeline.exists():
            run("apply", str(pipeline))
            sys.exit(process.wait())
        functions = {"sum": "clipper_models:total", "slept": "clipper_models:slept"}
        function = functions.get(os.environ["TASK"])
        what = [os.environ["MODEL"]] if function is None else [function, "--input-type", "float64[4]"]
        cache = [] if "CACHE" in os.environ else ["--no-cache"]
        run("deploy", "m", *what, *cache, *json.loads(os.environ.get("DEPLOY", "[]")))
        run("app", "create", "m", "--model", "m", "--slo-ms", os.environ["SLO_MS"], "--default", "-1")
        sys.exit(process.wait())


if __name__ == "__main__":
    main()
