"""``clipper load``."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from clipper.cli.load import summary
from clipper.cli.load.arrivals import Arrivals
from clipper.cli.load.page import as_page
from clipper.cli.load.report import LoadedApplication, LoadOptions, Report, Watch, as_document
from clipper.cli.load.sweep import MAX_PER_S
from clipper.cli.names import ApplicationName
from clipper.cli.options import ApiKey, Home, HtmlFile, Url, number, one_of
from clipper.cli.output import Output, reported
from clipper.client import Clipper, Trust
from clipper.client.access import tls_for_url
from clipper.errors import ClipperError, ServiceError, Unavailable
from clipper.settings.application import MAX_SLO_MS
from clipper.settings.home import find_home
from clipper.values.records import parse_type

_SAMPLE = "sample"
_STANDARD_OUTPUT = "-"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 1e-3, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_DURATION_S = 24 * 3600.0
# First rate of a sweep, by default.
_FIRST_RATE_PER_S = 100.0


def parse_duration_s(text: str) -> float:
    """Read ``10``, ``10s``, ``500ms``, ``2m`` or ``1h`` as seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: expected e.g. 10, 10s, 500ms or 2m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _MAX_DURATION_S:
        raise typer.BadParameter(f"{text!r}: expected more than 0 and at most 24h")
    return seconds


def load(
    app: ApplicationName,
    rate: Annotated[
        float | None,
        number(
            float,
            help="Queries a second; with --sweep, the first rate.",
            least=0,
            above=True,
            most=MAX_PER_S,
            metavar="N",
            show_default="100 with --sweep",
        ),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(
            help="How long to send, e.g. 10, 500ms, 2m; with --sweep, for each rate.",
            parser=parse_duration_s,
            metavar="TIME",
        ),
    ] = "10s",  # type: ignore[assignment]  # typer parses the default too
    sweep: Annotated[bool, typer.Option("--sweep", help="Find the highest rate that keeps the SLO.")] = False,
    inputs: Annotated[
        str,
        typer.Option(
            help="A file to send: JSON lines, each an input or a whole body; or the rows of a .csv, .parquet or .npy "
            "file. Or sample: random inputs that all differ.",
            metavar="FILE|sample",
        ),
    ] = _SAMPLE,
    width: Annotated[
        int | None,
        number(
            int,
            help="With --inputs sample: characters, bytes, or numbers along an open dimension.",
            least=1,
            show_default="100 characters or bytes, 4 numbers",
        ),
    ] = None,
    arrivals: Annotated[
        Arrivals, one_of(Arrivals, help="When queries are due: poisson, constant, or burst.")
    ] = "poisson",
    connections: Annotated[
        int, number(int, help="How many connections may be open at once.", least=1, most=50_000)
    ] = 1000,
    slo_ms: Annotated[
        float | None,
        number(
            float,
            help="The SLO to judge by, in milliseconds.",
            least=0.1,
            most=MAX_SLO_MS,
            show_default="the application's",
        ),
    ] = None,
    html: HtmlFile = None,
    api_key: ApiKey = None,
    home: Home = None,
    url: Url = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Write all numbers as JSON to this file, or -.", metavar="FILE|-")
    ] = None,
) -> None:
    """Send queries at a rate, without waiting for earlier answers, and report how they were answered.

    Latency counts from when a query was due. ^C ends the run, and shows what was measured until then.
    """
    if rate is None and not sweep:
        raise typer.BadParameter("give --rate, or --sweep to find the highest rate", param_hint="--rate")
    if width is not None and inputs != _SAMPLE:
        raise typer.BadParameter("goes with --inputs sample", param_hint="--width")
    loaded = _find(app, url, home, slo_ms, has_file=inputs != _SAMPLE)
    json_file = None if json is None or json == _STANDARD_OUTPUT else Path(json)
    for path in filter(None, (html, json_file)):
        # Checked before the load: otherwise its results would be lost if the file could not be written.
        with reported(path, "written"):
            path.open("ab").close()
    options = LoadOptions(
        rate_per_s=rate or _FIRST_RATE_PER_S,
        duration_s=duration,
        sweep=sweep,
        inputs=None if inputs == _SAMPLE else Path(inputs),
        width=width,
        arrivals=arrivals,
        max_connections=connections,
        api_key=api_key,
    )
    out = Output(as_json=json == _STANDARD_OUTPUT)
    # Imported here, so that no other command pays for it.
    from clipper.cli.load.runner import carry_out

    with _progress(quiet=json == _STANDARD_OUTPUT) as watch:
        report = carry_out(loaded, options, watch)
    if not out.as_json:
        _show_tables(out, report)
    out.done(as_document(report), summary.conclusion(report))
    out.warn(*summary.warnings(report))
    if html is not None:
        out.page(html, as_page(report))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(as_document(report)), indent=1) + b"\n")
        out.note(f"written to {json_file}")


def _find(app: str, url: str | None, home: Path | None, slo_ms: float | None, *, has_file: bool) -> LoadedApplication:
    """Find the application's address and input type; ``url`` may be a query port's if everything else is given."""
    try:
        clipper = Clipper.connect(url, home)
    except (ClipperError, msgspec.MsgspecError) as error:
        if url is not None and slo_ms is not None and has_file:
            tls = tls_for_url(url, find_home(home), Trust())
            return LoadedApplication(app, url.rstrip("/"), None, slo_ms, "option", tls)
        if url is None or isinstance(error, ServiceError):
            raise
        raise Unavailable(
            f"{url} is not the management address of a Clipper ({error}): give that, e.g. http://HOST:1338; if it "
            "cannot be reached, give a query address with --slo-ms and --inputs FILE"
        ) from error
    with clipper:
        known = clipper.application(app)
    input_type = parse_type(known.input_type)
    slo_of = "application" if slo_ms is None else "option"
    return LoadedApplication(app, clipper.query_url, input_type, slo_ms or known.slo_ms, slo_of, clipper.tls)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Watch]:
    """Show the progress once a second on a terminal.

    The sending thread draws it between queries. A thread of its own would hold up the sending at any time.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if quiet or not sys.stdout.isatty():
        yield lambda rate_per_s, elapsed_s, second: None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda *facts: live.update(Text(summary.progress(*facts)), refresh=True)


def _show_tables(out: Output, report: Report) -> None:
    if report.found or len(report.runs) > 1:
        out.table(report, summary.SWEEP_COLUMNS, summary.sweep_rows(report.runs), "")
        out.note("")
        return
    (run,) = report.runs
    out.table(report, summary.COUNT_COLUMNS, summary.count_rows(run), "")
    out.note("\nlatency from when a query was due")
    out.table(report, summary.LATENCY_COLUMNS, summary.latency_rows(run), "no query was due yet")
    out.note("\nby the second in which queries were due")
    out.table(report, summary.SECOND_COLUMNS, summary.second_rows(run), "no query was due yet")
    out.note("")
