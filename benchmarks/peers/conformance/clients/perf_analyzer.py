"""What perf_analyzer measures with the data that it makes up, for each datatype. It exits with 0 also if it fails."""

import subprocess
import sys
from pathlib import Path

from showing import ECHOES, outcome, tell


def measured(protocol, url, *options):
    program = Path(sys.executable).with_name("perf_analyzer")
    command = [program, "-i", protocol, "-u", url, "--request-count", "50", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "Throughput:" in done.stdout and "Request count: 50" in done.stdout:
        return "measured"
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"failed: {said[-1] if said else done.returncode}"


def main(http, rpc):
    models = {f"echo_{name}": f"data of {name}" for name in ECHOES}
    models |= {"texts": "texts", "classes": "two outputs", "pair": "two inputs", "holes": "NaN", "slow": "a slow model"}
    found = {}
    for name, what in models.items():
        size = ("--string-length", "5") if name == "texts" else ()
        for way, url, options in (
            ("HTTP", http, ()),
            ("gRPC", rpc, ()),
            ("stream", rpc, ("--streaming",)),
        ):
            protocol = "http" if way == "HTTP" else "grpc"
            batch = ("-b", "1" if way == "stream" else "4", "-m", name)
            found[f"{what}, {way}"] = outcome(lambda: measured(protocol, url, *batch, *size, *options))
    found["four at a time, HTTP"] = outcome(
        lambda: measured("http", http, "-m", "total", "-b", "4", "--concurrency-range", "4")
    )
    found["a rate, gRPC"] = outcome(lambda: measured("grpc", rpc, "-m", "total", "--request-rate-range", "40"))
    tell(found)


main(*sys.argv[1:3])
