"""Triton itself, with its backend for Python: the server that the wheel of PyTriton brings, without PyTriton."""

import os
import shutil
import sys
from pathlib import Path

import pytriton
from models import MODELS

TRITON = Path(pytriton.__file__).parent / "tritonserver"


def config(model):
    tensors = [("input", *each) for each in model.inputs.items()]
    tensors += [("output", *each) for each in model.outputs.items()]
    lines = ['backend: "python"', "max_batch_size: 64", "dynamic_batching { }"]
    for kind, name, (datatype, shape) in tensors:
        data_type = "STRING" if datatype == "BYTES" else datatype
        lines.append(f'{kind} {{ name: "{name}" data_type: TYPE_{data_type} dims: {shape} }}')
    return "\n".join(lines)


def main():
    scratch, folder = Path(os.environ["SCRATCH"]), Path(__file__).parent
    for name, model in MODELS.items():
        version = scratch / "repository" / name / "1"
        version.mkdir(parents=True)
        shutil.copy(folder / "triton_model.py", version / "model.py")
        shutil.copy(folder / "models.py", version)
        (version.parent / "config.pbtxt").write_text(config(model))
    backend = scratch / "backends" / "python"
    shutil.copytree(TRITON / "backends" / "python", backend)
    # The backend for another Python is the same but for its stub.
    python = ".".join(map(str, sys.version_info[:2]))
    shutil.copy(TRITON / "python_backend_stubs" / python / "triton_python_backend_stub", backend)
    packages = Path(pytriton.__file__).parents[1]
    libraries = f"{os.environ['LD_LIBRARY_PATH']}:{packages / 'nvidia_pytriton.libs'}"
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(packages)}
    options = {
        "model-repository": scratch / "repository",
        "backend-directory": backend.parent,
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "http-port": os.environ["PORT"],
        "grpc-port": os.environ["SECOND_PORT"],
        "allow-metrics": "false",
    }
    command = ["tritonserver", *(f"--{name}={value}" for name, value in options.items())]
    os.execve(TRITON / "bin" / "tritonserver", command, environment)


if __name__ == "__main__":
    main()
