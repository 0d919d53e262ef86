"""The result files: numbers of the last run of each figure, with the commit and the machine."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.figure import Figure

RESULTS = Path(__file__).parent / "results"

Documents = Mapping[str, Mapping[str, Any]]

# A list or an object without another in it.
_INNERMOST = re.compile(r"[\[{][^\[\]{}]*[\]}]")


def read(figures: Sequence[Figure], folder: Path = RESULTS) -> Documents:
    """The results that are there, by figure."""
    paths = {figure.name: folder / f"{figure.name}.json" for figure in figures}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def write(name: str, document: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write a result, whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    lines = _INNERMOST.sub(lambda found: re.sub(r"\s*\n\s*", " ", found[0]), text)
    aside = folder / f"{name}.part"
    aside.write_text(lines + "\n")
    aside.replace(folder / f"{name}.json")
