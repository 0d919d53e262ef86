"""A Clipper with the models and an application of the same name for each, made of one clipper.yaml."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from models import MODELS

COMMAND = str(Path(sys.executable).parent / "clipper")
# No check is about time: a busy machine is not to change what is answered.
SLO_MS = 20_000


def main():
    scratch, folder = Path(os.environ["SCRATCH"]), Path(__file__).parent
    environment = {**os.environ, "CLIPPER_HOME": str(scratch / "home")}
    models, applications = {}, {}
    for name, model in MODELS.items():
        (scratch / name).write_text(name)
        models[name] = {
            "model": "clipper_models:Zoo",
            "folder": str(folder),
            "data": str(scratch / name),
            "input_type": model.input_type,
            "output_type": model.output_type,
        }
        default = {} if model.default is None else {"default_output": model.default}
        applications[name] = {"links": [name], "slo_ms": SLO_MS, **default}
    manifest = scratch / "clipper.yaml"
    manifest.write_text(json.dumps({"models": models, "applications": applications}))
    ports = ["--query-port", os.environ["PORT"], "--grpc-port", os.environ["SECOND_PORT"]]
    server = [COMMAND, "start", "--foreground", "--management-port", "0", *ports]
    with subprocess.Popen(server, env=environment) as process:
        signal.signal(signal.SIGINT, lambda *_: process.terminate())
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while subprocess.run([COMMAND, "status"], env=environment, capture_output=True, check=False).returncode:
            if process.poll() is not None:
                sys.exit("clipper start has ended")
        subprocess.run([COMMAND, "apply", str(manifest)], env=environment, check=True)
        sys.exit(process.wait())


if __name__ == "__main__":
    main()
