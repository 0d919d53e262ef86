"""``clipper app calibration``: how often answers were right, by their confidence."""

from html import escape

from clipper.api.pages import Axis, Line, chart, document, paragraph, table
from clipper.cli.names import ApplicationName
from clipper.cli.options import HtmlFile
from clipper.cli.server import Server
from clipper.control.descriptions import ConfidenceBin, Reliability

_COLUMNS = ("of", "raw confidence", "answers", "right", "answered now")
# Bins with fewer answers, left over by fading or inheriting, are not significant.
_LEAST_ANSWERS = 0.5


def calibration(
    server: Server,
    name: ApplicationName,
    html: HtmlFile = None,
) -> None:
    """Show how often answers were right, by their confidence before calibration and as answered."""
    out, found = server.out, server.clipper.policy(name).calibration
    calibrates = server.clipper.application(name).calibrate
    why = "there is no feedback on its answers yet" if calibrates else f"next: clipper app update {name} --calibrate"
    rows = [(of(each), *row) for each in found for row in _rows(each)]
    out.table(found, _COLUMNS, rows, f"it is not known how often {name}'s answers are right: {why}")
    out.note(*map(summary, found))
    if html is not None:
        out.page(html, _page(name, found))


def of(found: Reliability) -> str:
    """Name the model and the kind of confidence, e.g. ``svm, probability``."""
    return f"{found.model or 'several models'}, {found.basis}"


def summary(found: Reliability) -> str:
    answers = sum(each.answers for each in found.raw)
    return (
        f"confidence of {of(found)}: expected calibration error {found.answered_error:.3f} as answered, "
        f"{found.raw_error:.3f} raw, by {answers:.0f} answers with feedback that still count"
    )


def _rows(found: Reliability) -> list[tuple[str, ...]]:
    return [
        (f"{each.confidence:.4f}", f"{each.answers:.0f}", f"{each.right:.1%}", f"{each.calibrated or 0:.4f}")
        for each in _with_enough(found.raw)
    ]


def _with_enough(found: tuple[ConfidenceBin, ...]) -> list[ConfidenceBin]:
    return [each for each in found if each.answers >= _LEAST_ANSWERS]


def _page(name: str, found: tuple[Reliability, ...]) -> str:
    parts = [
        f"<h1>Confidence of {escape(name)}</h1><p>On the dashed line an answer of confidence 0.9 is right nine times "
        "in ten; below the line answers are less often right than their confidence says.</p>"
    ]
    for each in found:
        diagonal = Line("right as often as sure", [(0.0, 0.0), (1.0, 1.0)], dashed=True)
        raw = Line("raw", [(one.confidence, one.right) for one in _with_enough(each.raw)])
        answered = Line("as answered", [(one.confidence, one.right) for one in _with_enough(each.answered)])
        parts += [
            chart(f"Reliability of {of(each)}", Axis("confidence"), Axis("right"), [answered, raw, diagonal]),
            paragraph(summary(each)),
            table(_COLUMNS[1:], _rows(each)),
        ]
    if not found:
        parts.append("<p>There is no feedback on its answers yet.</p>")
    return document(f"clipper app calibration {name}", parts)
