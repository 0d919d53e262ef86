"""Follows the pages of frameworks, each with its framework's own Python: the file that saves a model is run, and the
page's commands deploy and ask what was saved. ``make docs-test`` follows all of them, and
``python -m tests.docs.recipes pytorch mlflow`` some.

Each saved file is recognised as its framework's; the tests of the frameworks ask such files.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from clipper.client.packaging.frameworks import recognise
from scripts.real_models import environment
from tests.docs.pages import ROOT, WITHIN_S, Reader, blocks, commands

# Each page's framework, with what its file saves, and as which framework that is recognised. Weights alone are named by
# --framework.
SAVES = {
    "scikit-learn": ("sklearn", {"digits.joblib": "joblib"}),
    "xgboost": ("xgboost", {"boosted.ubj": "xgboost"}),
    "lightgbm": ("lightgbm", {"trees.lgb": "lightgbm"}),
    "onnx": ("onnx", {"digits.onnx": "onnx"}),
    "pytorch": ("torch", {"net.pt": "torchscript", "net.pt2": "torch_export"}),
    "tensorflow": ("tensorflow", {"net.keras": "keras", "saved_model": "tensorflow"}),
    "mlflow": ("mlflow", {"digits": "mlflow"}),
    "spark": ("spark", {"spark_model": "spark"}),
    "hmmlearn": ("hmmlearn", {"hmm.joblib": "joblib"}),
}
# Commands about files of the reader's.
OF_READERS = "income"


def page_of(framework: str) -> Path:
    return ROOT / "docs" / f"{framework}.md"


def python_of(framework: str) -> str:
    name, _ = SAVES[framework]
    return sys.executable if name == "sklearn" else str(environment(name))


def saved(framework: str, folder: Path) -> dict[str, str]:
    """Run the file of a framework's page in a folder; return what each saved file is recognised as.

    Raises:
        subprocess.CalledProcessError: it failed; what it says is on stderr.
    """
    for block in blocks(page_of(framework)):
        Reader(folder).save(block)
    (script,) = folder.glob("save_*.py")
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    subprocess.run(
        [python_of(framework), script.name],
        cwd=folder,
        env=environ,
        check=True,
        timeout=WITHIN_S,
        stdout=subprocess.DEVNULL,
    )
    return {name: recognise(folder / name) for name in SAVES[framework][1]}


def asked(framework: str, folder: Path) -> list[str]:
    """Run the commands of a framework's page in a folder in which its file has run; return what each printed."""
    reader, printed = Reader(folder), []
    within = f" --python {shlex.quote(python_of(framework))} --start-timeout {WITHIN_S}"
    shells = [block.text for block in blocks(page_of(framework)) if block.language == "sh"]
    try:
        for command in (command for text in shells for command in commands(text)):
            if not command.startswith("python ") and OF_READERS not in command:
                printed.append(reader.run(command + within * command.startswith("clipper deploy")))
    finally:
        reader.run("clipper stop")
    return printed


def main() -> int:
    wrong = []
    for framework in sys.argv[1:] or SAVES:
        _, expected = SAVES[framework]
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = saved(framework, Path(folder))
                assert found == expected, f"{found} is not {expected}"
                for told in asked(framework, Path(folder)):
                    print(f"{framework}: {told.splitlines()[0]}", flush=True)
            except (AssertionError, subprocess.SubprocessError) as error:  # the others are followed all the same
                wrong.append(framework)
                print(f"{framework}: {error}", flush=True)
    print(f"pages that fail: {', '.join(wrong) or 'none'}")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
