"""The servers that are compared, each with all models of ``zoo/``; PyTriton has only that of ``calls.json``."""

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.conformance.zoo.models import MODELS
from benchmarks.peers.forms import V2, V2_BINARY
from benchmarks.peers.table import PEERS, Peer

PATH = "/v2/models/m/infer"
_ZOO = "{folder}/../conformance/zoo"


def _mlserver_files(variables: Mapping[str, str]) -> None:
    scratch = Path(variables["SCRATCH"])
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(variables["PORT"]),
        "grpc_port": int(variables["SECOND_PORT"]),
        "metrics_port": int(variables["THIRD_PORT"]),
        "metrics_endpoint": None,
        "parallel_workers": 0,
    }
    (scratch / "settings.json").write_text(json.dumps(settings))
    for name in MODELS:
        (scratch / name).mkdir()
        of_model = {"name": name, "implementation": "mlserver_models.Zoo", "parameters": {"version": "1"}}
        (scratch / name / "model-settings.json").write_text(json.dumps(of_model))


SERVERS = {
    "clipper": Peer(None, "clipper-serving", f"{{python}} {_ZOO}/clipper_app.py", V2_BINARY, PATH),
    "triton": Peer("pytriton", "nvidia-pytriton", f"{{python}} {_ZOO}/triton_app.py", V2_BINARY, PATH),
    "pytriton": PEERS["pytriton"],
    "mlserver": Peer(
        "mlserver",
        "mlserver",
        f"env PYTHONPATH={_ZOO} {{bin}}/mlserver start {{SCRATCH}}",
        V2,
        PATH,
        prepare=_mlserver_files,
    ),
}
