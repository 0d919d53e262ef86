"""Run the notebooks of docs/notebooks, in their environment: ``run_notebooks.py [--save] [NAME.ipynb ...]``.

With ``--save`` the files get the outputs: run that on a machine that does nothing else, since two of them measure load.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
# A cell may start a server, deploy models and ask thousands of queries.
CELL_TIMEOUT_S = 300


def run(path: Path, save: bool) -> None:
    """Run a notebook in an empty folder, and store its outputs if ``save``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message has the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="clipper-notebook-") as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources, record_timing=False
        ).execute()
    if save:
        notebook.metadata.language_info = {"name": "python"}  # and not the version of this machine's Python
        nbformat.write(notebook, path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


if __name__ == "__main__":
    named = [word for word in sys.argv[1:] if word != "--save"]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not named or path.name in named:
            begun_s = time.monotonic()
            run(path, "--save" in sys.argv)
            sys.stdout.write(f"{path.name} ran in {time.monotonic() - begun_s:.0f} s\n")
