"""Runs the code of pages that builds environments or needs the programs of others: ``make docs-test``.

The Python of docs/open-inference.md, with the clients that it names, and all of docs/environments.md.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
from sklearn.svm import SVC

from clipper import Clipper
from clipper.settings.home import read_place
from scripts.real_models import environment
from tests.docs.pages import ROOT, Reader, blocks, commands

# Runs what it reads, texts of Python by their place, with the same names; one may wait at its top level.
DRIVER = """
import ast, asyncio, inspect, json, sys
names = {}
for place, text in json.load(sys.stdin):
    waiting = eval(compile(text, place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(waiting):
        asyncio.run(waiting)
"""


@contextmanager
def server(reader: Reader) -> Iterator[Clipper]:
    """A server with all its ports, in the reader's home."""
    subprocess.run(
        ["clipper", "start", "--query-port", "0", "--management-port", "0", "--grpc-port", "0"],
        env=reader.environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        with Clipper.connect(home=reader.folder / ".clipper") as clipper:
            yield clipper
    finally:
        reader.run("clipper stop")


def open_inference(reader: Reader) -> list[str]:
    """The output of the page's clients."""
    http, kserve, further, operator, grpc = [
        block for block in blocks(ROOT / "docs" / "open-inference.md") if block.language == "python"
    ]
    home = reader.folder / ".clipper"
    with server(reader) as clipper:
        clipper.deploy("digits", lambda images: [int(image.sum()) for image in images], input_type="float64[784]")
        clipper.create_application("digits", model="digits", slo_ms=20_000)
        now = clipper.status()
        addresses = {
            "localhost:1337": now.query_url.partition("//")[2],
            "localhost:1338": read_place(home).management_url.partition("//")[2],
            "localhost:1339": str(now.grpc_address),
        }
        token = (home / "token").read_text()
        # Each client has a process of its own: KServe's and Triton's both bring the protocol's messages. The page
        # goes on from Triton's client of REST after that of KServe.
        clients = [
            [(http.place, http.text), (further.place, f"images = image\n{further.text}\nprint(ids.shape)")],
            [(kserve.place, f"{kserve.text}\nprint(answer.outputs[0].data)")],
            [(operator.place, f"token = {token.strip()!r}\n{operator.text}\nprint('loaded')")],
            [(grpc.place, grpc.text.replace("client_timeout=0.5", "client_timeout=100"))],
        ]
        return [line for texts in clients for line in _printed(texts, addresses)]


def _printed(texts: list[tuple[str, str]], addresses: dict[str, str]) -> list[str]:
    """The output of texts of Python, with these addresses in place of the page's."""
    for old, new in addresses.items():
        texts = [(place, text.replace(old, new)) for place, text in texts]
    done = subprocess.run(
        [environment("open_inference"), "-c", DRIVER],
        input=json.dumps(texts),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout.splitlines()


def environments(reader: Reader) -> list[str]:
    """The Pythons of the versions that the page deploys."""
    page = list(blocks(ROOT / "docs" / "environments.md"))
    (python,) = [block for block in page if block.language == "python"]
    estimator = SVC().fit(np.eye(4), np.arange(4))
    joblib.dump(estimator, reader.folder / "model.joblib")
    listed = re.search(r"requirements=\[(.*)\]", python.text)
    assert listed is not None
    (reader.folder / "reqs.txt").write_text("\n".join(re.findall(r'"([^"]+)"', listed[1])))
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    reader.changes |= {"--python 3.12": f"--python {own}", "~/venv/bin/python": sys.executable}
    with server(reader) as clipper:
        for command in [line for block in page if block.language == "sh" for line in commands(block.text)]:
            reader.run(command)
        exec(compile(python.text, python.place, "exec"), {"Clipper": _found(clipper), "estimator": estimator})
        return [version.runtime for version in clipper.model("fraud").versions]


def _found(clipper: Clipper) -> object:
    """``Clipper`` as the page has it, which finds this server."""
    return SimpleNamespace(connect=lambda: clipper)


def main() -> int:
    for page in (open_inference, environments):
        with tempfile.TemporaryDirectory() as folder:
            for line in page(Reader(Path(folder))):
                print(f"{page.__name__}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
