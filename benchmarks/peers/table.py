"""The peers, each with the settings that served it best.

The settings of ``svm`` were searched (README.md beside this): batch sizes, waits, processes, event loops, parsers.
``sum`` takes the same. Those of ``slept`` were chosen for a model whose time is a batch's: large batches, longer waits.
For tables, MLServer answered six times as many with its batches as without.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.forms import BYTES, INPUT, OUTPUT, ROWS, SPLIT, V2, V2_BINARY, Form
from benchmarks.peers.tasks import LISTS, PIPELINES, TABLES

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, and how it is run.

    Attributes:
        environment: of ``requirements/peers``; None is Clipper's own.
        package: whose version is told.
        command: ``{python}`` and ``{bin}`` stand for the environment's, ``{folder}`` for that of ``apps``, any other
            name for a variable of the process.
        settings: variables, which ``apps`` read.
        slept, tables: settings of that task, and of the tasks on tables, where they differ.
        prepare: writes files into ``SCRATCH`` before the start.
        warm_up_s: how long it is loaded before the first round.
        tasks: the tasks that it is measured on.
    """

    environment: str | None
    package: str
    command: str
    form: Form
    path: str
    settings: Mapping[str, str] = field(default_factory=dict)
    slept: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Mapping[str, str]], None] | None = None
    warm_up_s: float = 3.0
    tasks: tuple[str, ...] = LISTS

    def settings_of(self, task: str) -> dict[str, str]:
        own = {"slept": self.slept, **dict.fromkeys(TABLES, self.tables)}
        return {**self.settings, **own.get(task, {})}


def _mlserver_files(variables: Mapping[str, str]) -> None:
    scratch = Path(variables["SCRATCH"])
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(variables["PORT"]),
        "grpc_port": int(variables["SECOND_PORT"]),
        "metrics_port": int(variables["THIRD_PORT"]),
        "metrics_endpoint": None,
        "gzip_enabled": False,
        "parallel_workers": int(variables["WORKERS"]),
    }
    is_file = Path(variables["MODEL"]).exists()
    model: dict[str, object] = {
        "name": "m",
        "implementation": "mlserver_sklearn.SKLearnModel" if is_file else "mlserver_runtime.Runtime",
        "max_batch_size": int(variables["MAX_BATCH"]),
        "max_batch_time": int(variables["WAIT_MS"]) / 1000,
        "parameters": {"version": "1", **({"uri": variables["MODEL"]} if is_file else {})},
    }
    (scratch / "settings.json").write_text(json.dumps(settings))
    (scratch / "model-settings.json").write_text(json.dumps(model))


def _torchserve_files(variables: Mapping[str, str]) -> None:
    scratch = Path(variables["SCRATCH"])
    (scratch / "store").mkdir()
    (scratch / "weights.bin").touch()
    archive = [str(Path(variables["BIN"]) / "torch-model-archiver"), "--model-name", "m", "--version", "1.0"]
    archive += ["--serialized-file", str(scratch / "weights.bin"), "--handler", str(APPS / "torchserve_handler.py")]
    archive += ["--export-path", str(scratch / "store")]
    subprocess.run(archive, check=True, env=dict(variables))
    version = {
        "defaultVersion": True,
        "marName": "m.mar",
        "minWorkers": int(variables["WORKERS"]),
        "maxWorkers": int(variables["WORKERS"]),
        "batchSize": int(variables["MAX_BATCH"]),
        "maxBatchDelay": int(variables["WAIT_MS"]),
        "responseTimeout": 120,
    }
    settings = {
        "inference_address": f"http://127.0.0.1:{variables['PORT']}",
        "management_address": f"http://127.0.0.1:{variables['SECOND_PORT']}",
        "metrics_address": f"http://127.0.0.1:{variables['THIRD_PORT']}",
        "enable_grpc": "false",
        "disable_token_authorization": "true",
        "disable_system_metrics": "true",
        "job_queue_size": "1000",
        "default_workers_per_model": variables["WORKERS"],
        "model_store": str(scratch / "store"),
        "load_models": "m.mar",
        "models": json.dumps({"m": {"1.0": version}}),
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (scratch / "config.properties").write_text("".join(lines))


def _app(name: str) -> str:
    return f"{{python}} {{folder}}/{name}_app.py"


_UVICORN = (
    "{bin}/uvicorn fastapi_app:app --host 127.0.0.1 --port {PORT} --workers {WORKERS} --no-access-log "
    "--log-level warning"
)
_GUNICORN = (
    "{bin}/gunicorn flask_app:app -b 127.0.0.1:{PORT} -w {WORKERS} --reuse-port -k gthread --threads {THREADS} "
    "--keep-alive 30"
)
_MLFLOW = "{bin}/mlflow models serve -m {DATA}/{TASK}.mlflow --env-manager local -h 127.0.0.1 -p {PORT} -w {WORKERS}"
_BENTOML = "{bin}/bentoml serve bentoml_app:Service --host 127.0.0.1 --port {PORT}"
# It keeps its process id in the folder for temporary files, and would refuse to run beside another's.
_TORCHSERVE = "env TMPDIR={SCRATCH} {bin}/torchserve --foreground --ts-config {SCRATCH}/config.properties --ncs"

_MOSEC = {"MAX_BATCH": "32", "WAIT_MS": "1", "WORKERS": "2"}
_MOSEC_SLEPT = {"MAX_BATCH": "128", "WAIT_MS": "5"}
_TRITON = {"MAX_BATCH": "64", "WAIT_MS": "1", "THREADS": "2"}
_TRITON_SLEPT = {"MAX_BATCH": "128", "WAIT_MS": "5"}
_RAY = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}

PEERS = {
    "clipper": Peer(None, "clipper-serving", _app("clipper"), OUTPUT, "/m/predict", tasks=LISTS + TABLES + PIPELINES),
    "clipper-1-worker": Peer(None, "clipper-serving", _app("clipper"), OUTPUT, "/m/predict", {"WORKERS": "1"}),
    "clipper-2-workers": Peer(None, "clipper-serving", _app("clipper"), OUTPUT, "/m/predict", {"WORKERS": "2"}),
    "clipper-binary": Peer(None, "clipper-serving", _app("clipper"), V2_BINARY, "/v2/models/m/infer"),
    "yardstick": Peer(None, "clipper-serving", _app("yardstick"), OUTPUT, "/any"),
    "mosec": Peer("mosec", "mosec", _app("mosec"), INPUT, "/inference", {**_MOSEC, "READS": "simd"}, _MOSEC_SLEPT),
    "mosec-orjson": Peer(
        "mosec", "mosec", _app("mosec"), INPUT, "/inference", {**_MOSEC, "READS": "orjson"}, _MOSEC_SLEPT
    ),
    "ray": Peer(
        "ray",
        "ray",
        _app("ray"),
        INPUT,
        "/predict",
        {**_RAY, "READS": "simd", "MAX_BATCH": "64", "WAIT_MS": "1", "WORKERS": "2"},
        {"MAX_BATCH": "128", "WAIT_MS": "5"},
    ),
    "bentoml": Peer(
        "bentoml",
        "bentoml",
        _BENTOML,
        ROWS,
        "/predict",
        {"MAX_BATCH": "128", "WAIT_MS": "60000", "WORKERS": "2", "OTEL_SDK_DISABLED": "true"},
        tasks=LISTS + TABLES,
    ),
    "ray-pipeline": Peer(
        "ray",
        "ray",
        _app("ray_pipeline"),
        INPUT,
        "/predict",
        {**_RAY, "MAX_BATCH": "64", "WAIT_MS": "1"},
        tasks=PIPELINES,
    ),
    "bentoml-pipeline": Peer(
        "bentoml",
        "bentoml",
        _BENTOML.replace("bentoml_app", "bentoml_pipeline_app"),
        ROWS,
        "/predict",
        {"MAX_BATCH": "128", "WAIT_MS": "60000", "OTEL_SDK_DISABLED": "true"},
        tasks=PIPELINES,
    ),
    "pytriton-pipeline": Peer(
        "pytriton", "nvidia-pytriton", _app("pytriton_pipeline"), V2, "/v2/models/m/infer", _TRITON, tasks=PIPELINES
    ),
    "litserve": Peer(
        "litserve",
        "litserve",
        _app("litserve"),
        INPUT,
        "/predict",
        {"MAX_BATCH": "64", "WAIT_MS": "1", "WORKERS": "1", "FRONTS": "2"},
        {"MAX_BATCH": "128", "WAIT_MS": "5"},
    ),
    "mlserver": Peer(
        "mlserver",
        "mlserver",
        "{bin}/mlserver start {SCRATCH}",
        V2,
        "/v2/models/m/infer",
        {"MAX_BATCH": "0", "WAIT_MS": "0", "WORKERS": "0"},
        {"MAX_BATCH": "128", "WAIT_MS": "5"},
        tables={"MAX_BATCH": "32", "WAIT_MS": "5"},
        prepare=_mlserver_files,
        tasks=LISTS + TABLES,
    ),
    "mlflow": Peer(
        "mlflow",
        "mlflow",
        _MLFLOW,
        SPLIT,
        "/invocations",
        {
            "WORKERS": "2",
            "UVICORN_ACCESS_LOG": "false",
            "UVICORN_LOG_LEVEL": "warning",
            "MLFLOW_TRACKING_URI": "./none",
        },
        tasks=TABLES,
    ),
    "pytriton": Peer("pytriton", "nvidia-pytriton", _app("pytriton"), V2, "/v2/models/m/infer", _TRITON, _TRITON_SLEPT),
    "pytriton-binary": Peer(
        "pytriton", "nvidia-pytriton", _app("pytriton"), V2_BINARY, "/v2/models/m/infer", _TRITON, _TRITON_SLEPT
    ),
    "torchserve": Peer(
        "torchserve",
        "torchserve",
        _TORCHSERVE,
        BYTES,
        "/predictions/m",
        {"READS": "simd", "MAX_BATCH": "64", "WAIT_MS": "1", "WORKERS": "2"},
        {"MAX_BATCH": "128", "WAIT_MS": "5"},
        prepare=_torchserve_files,
        warm_up_s=8.0,  # Java compiles what is called often
    ),
    "fastapi": Peer(
        "fastapi",
        "fastapi",
        _UVICORN,
        INPUT,
        "/predict",
        {"READS": "simd", "WORKERS": "2"},
        {"READS": "pydantic", "THREADS": "1"},
    ),
    "fastapi-pydantic": Peer(
        "fastapi",
        "fastapi",
        _UVICORN,
        INPUT,
        "/predict",
        {"READS": "pydantic", "WORKERS": "2"},
        {"THREADS": "1"},
        tasks=LISTS + TABLES,
    ),
    "flask": Peer(
        "flask",
        "flask",
        _GUNICORN,
        INPUT,
        "/predict",
        {"READS": "simd", "WORKERS": "2", "THREADS": "4"},
        {"THREADS": "64"},
    ),
}
