"""Runs the files of docs/frameworks.md that save models, each where its framework is: ``make docs-test``.

What each has saved is recognised as the framework that it is of; the tests of the frameworks load and ask such files.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import ROOT, Block, Reader, blocks

from benchmarks.real_models import environment
from clipper.packaging.frameworks import recognise

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


def run(framework: str, folder: Path) -> dict[str, str]:
    """Run a framework's file in a folder; return what each saved file is recognised as.

    Raises:
        subprocess.CalledProcessError: it failed; what it says is on stderr.
    """
    python = sys.executable if framework == "sklearn" else str(environment(ENVIRONMENTS.get(framework, framework)))
    for block in blocks(PAGE):
        Reader(folder).save(block)
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    subprocess.run(
        [python, f"save_{framework}.py"],
        cwd=folder,
        env=environ,
        check=True,
        timeout=WITHIN_S,
        stdout=subprocess.DEVNULL,
    )
    return {name: recognise(folder / name) for name in SAVES[framework]}


def main() -> int:
    wrong = 0
    for framework, expected in SAVES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = run(framework, Path(folder))
        wrong += found != expected
        print(f"{framework}: {found}" + ("" if found == expected else f", and not {expected}"))
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
