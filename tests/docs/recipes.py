"""Runs the files of docs/frameworks.md that save models, each where its framework is, and then the page's commands that
deploy what was saved: ``make docs-test``.

What each has saved is recognised as the framework that it is of; the tests of the frameworks ask such files.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from clipper.client.packaging.frameworks import recognise
from scripts.real_models import environment
from tests.docs.pages import ROOT, Block, Reader, blocks, commands

PAGE = ROOT / "docs" / "frameworks.md"
# What each file saves, and as which framework that is recognised. Weights alone are named by --framework.
SAVES = {
    "sklearn": {"svm.joblib": "joblib"},
    "xgboost": {"boosted.ubj": "xgboost"},
    "lightgbm": {"trees.lgb": "lightgbm"},
    "onnx": {"digits.onnx": "onnx"},
    "torch": {"net.pt": "torchscript", "net.pt2": "torch_export"},
    "keras": {"net.keras": "keras", "saved_model": "tensorflow"},
    "mlflow": {"digits": "mlflow"},
    "spark": {"spark_model": "spark"},
    "hmmlearn": {"hmm.joblib": "joblib"},
}
# Where the framework's environment has another name, or is ours.
ENVIRONMENTS = {"keras": "tensorflow"}
# Spark starts a Java process.
WITHIN_S = 180


def recipes() -> dict[str, Block]:
    """The page's files that save models, by their framework."""
    found = [block for block in blocks(PAGE) if block.text.startswith("# save_")]
    return {block.text.split(".py")[0].removeprefix("# save_"): block for block in found}


def deployments() -> dict[str, list[str]]:
    """The commands that deploy what each file saves, by its framework: the first block of commands after it."""
    found: dict[str, list[str]] = {}
    latest = ""
    for block in blocks(PAGE):
        if block.text.startswith("# save_"):
            latest = block.text.split(".py")[0].removeprefix("# save_")
        elif block.language == "sh" and latest:
            found[latest] = commands(block.text)
            latest = ""
    return found


def python_of(framework: str) -> str:
    return sys.executable if framework == "sklearn" else str(environment(ENVIRONMENTS.get(framework, framework)))


def run(framework: str, folder: Path) -> dict[str, str]:
    """Run a framework's file in a folder; return what each saved file is recognised as.

    Raises:
        subprocess.CalledProcessError: it failed; what it says is on stderr.
    """
    for block in blocks(PAGE):
        Reader(folder).save(block)
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    subprocess.run(
        [python_of(framework), f"save_{framework}.py"],
        cwd=folder,
        env=environ,
        check=True,
        timeout=WITHIN_S,
        stdout=subprocess.DEVNULL,
    )
    return {name: recognise(folder / name) for name in SAVES[framework]}


def main() -> int:
    wrong, deploys = 0, deployments()
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        reader.run("clipper start")
        try:
            for framework, expected in SAVES.items():
                found = run(framework, reader.folder)
                wrong += found != expected
                print(f"{framework}: {found}" + ("" if found == expected else f", and not {expected}"), flush=True)
                for command in deploys[framework]:
                    told = reader.run(f"{command} --python {python_of(framework)} --start-timeout {WITHIN_S}")
                    print(f"{framework}: {told.splitlines()[0]}", flush=True)
        finally:
            reader.run("clipper stop")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
