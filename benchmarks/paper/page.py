"""docs/paper.md's numbers and verdicts, from the result files alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.pages import fill, table
from benchmarks.harness.revision import CHANGED
from benchmarks.paper.figure import Claim, Figure, Verdict
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.paper.results import Documents

# From the page.
PICTURE_FOLDER = "../benchmarks/paper/results"
NOT_MEASURED = "Not measured yet: `make paper` measures it."
PAGE = Path(__file__).parents[2] / "docs" / "paper.md"


def render(page: str, documents: Documents) -> str:
    """Return the page with all results in their places."""
    parts = {
        figure.name: part(figure, documents[figure.name]["numbers"]) if figure.name in documents else NOT_MEASURED
        for figure in FIGURES
    }
    return fill(page, {"summary": summary(documents), **parts})


def summary(documents: Documents) -> str:
    """How much of the paper is reproduced, and what the results rest on."""
    measured = [figure for figure in FIGURES if figure.name in documents]
    verdicts = {figure.name: figure.judge(documents[figure.name]["numbers"]) for figure in measured}
    rows = [_row(figure, verdicts[figure.name], documents[figure.name]) for figure in measured]
    missing = [figure.what for figure in FIGURES if figure not in measured]
    held = sum(verdict.reproduced for verdict in verdicts.values())
    said = sum(len(verdict.paper) for verdict in verdicts.values())
    machine = next(iter(documents.values()))["machine"]
    lines = [
        f"**{held} of {said} statements of the paper are reproduced here.**",
        f"{_promises(verdicts)} The machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, Python {machine['python']}.",
        "",
        table(["figure", "reproduced", "promises kept", "commit", "load before", "took"], rows),
    ]
    return "\n".join([*lines, f"Not measured yet: {'; '.join(missing)}." if missing else ""])


def _promises(verdicts: Mapping[str, Verdict]) -> str:
    broken = [name for name, verdict in verdicts.items() if verdict.broken]
    return f"Clipper's own promises are broken in {', '.join(broken)}." if broken else "All of Clipper's promises hold."


def _row(figure: Figure, verdict: Verdict, document: Mapping[str, Any]) -> list[str]:
    machine = document["machine"]
    revision: str = machine["revision"]
    promises = f"{len(verdict.promises) - len(verdict.broken)} of {len(verdict.promises)}" if verdict.promises else ""
    return [
        figure.what,
        f"{verdict.reproduced} of {len(verdict.paper)}" if verdict.paper else "",
        promises,
        f"`{revision[:12] or 'none'}{CHANGED if CHANGED in revision else ''}`",
        f"{machine['load_before']:.1f}",
        f"{document['took_s']:.0f} s",
    ]


def part(figure: Figure, numbers: Mapping[str, Any]) -> str:
    """A figure's picture, verdict and numbers."""
    verdict = figure.judge(numbers)
    paper = [[claim.says, claim.here, _outcome(claim)] for claim in verdict.paper]
    parts = [
        f"![{figure.what}]({PICTURE_FOLDER}/{figure.name}.png)\n" if figure.name in PICTURES else "",
        table(["the paper", "here", "reproduced"], paper) if paper else "",
        promises_table(verdict),
        figure.describe(numbers),
    ]
    return "\n".join(each for each in parts if each)


def promises_table(verdict: Verdict) -> str:
    """Empty if there are none."""
    rows = [[claim.says, claim.here, _outcome(claim)] for claim in verdict.promises]
    return table(["Clipper's promise", "here", "kept"], rows) if rows else ""


def _outcome(claim: Claim) -> str:
    if claim.holds:
        return "yes"
    return f"**no**: {claim.reason}" if claim.reason else "**no**"


def lines(verdict: Verdict) -> Sequence[str]:
    """A verdict for a terminal."""
    marked = [("reproduced" if claim.holds else "not reproduced", claim) for claim in verdict.paper]
    marked += [("kept" if claim.holds else "BROKEN", claim) for claim in verdict.promises]
    return [f"{mark}: {claim.says}: {claim.here}" for mark, claim in marked]
