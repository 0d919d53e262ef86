"""Run the notebooks of docs/notebooks: ``run_notebooks.py [NAME.ipynb ...]``, in the environment that they have."""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
# A cell may start a server, deploy models and ask thousands of queries.
CELL_TIMEOUT_S = 300


def run(path: Path) -> None:
    """Run a notebook in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message has the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="clipper-notebook-") as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not sys.argv[1:] or path.name in sys.argv[1:]:
            begun_s = time.monotonic()
            run(path)
            sys.stdout.write(f"{path.name} ran in {time.monotonic() - begun_s:.0f} s\n")
