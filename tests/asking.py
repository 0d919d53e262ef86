"""Clients that ask without a pause while a server is replaced, and other Clippers for one of both."""

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

import clipper
from tests.waiting import TIMEOUT_S


class Asking:
    """Two clients that ask without a pause, one on a connection that it keeps and one on a new one each time."""

    def __init__(self, url: str, width: int, headers: Mapping[str, str] | None = None) -> None:
        """``width``: numbers in an input. ``headers``: for each query."""
        self.url, self._width, self._headers = url, width, dict(headers or {})
        self.answers: list[object] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, False)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _ask(self, kept: bool) -> None:
        number = 0
        with httpx.Client(verify=False, timeout=TIMEOUT_S, headers=self._headers) as client:
            while not self._is_over.wait(0.002):
                number += 1
                headers = {} if kept else {"Connection": "close"}
                try:
                    answer = client.post(self.url, json={"input": [float(number)] * self._width}, headers=headers)
                    self.answers.append(answer.json().get("output", answer.text))
                except httpx.HTTPError as error:
                    self.answers.append(repr(error))


def older_clipper(folder: Path) -> Path:
    """An install whose code is another, and whose processes say nothing of that, as before they did."""
    package = Path(clipper.__file__).parent
    shutil.copytree(package, folder / "clipper", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "clipper" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{clipper.__version__}"', '"0.0.9"'))
    return folder


def clipper_of(commit: str, folder: Path) -> Path:
    """The source of an earlier commit, as a folder of Python's path."""
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", root, "archive", commit, "src"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this is no clone that has the commit {commit}: {done.stderr.decode()[:200]}")
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=done.stdout, check=True)
    return folder / "src"
