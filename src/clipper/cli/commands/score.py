"""``clipper score``: predictions for the rows of files."""

import glob
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from clipper.api.schemas import Version
from clipper.cli.commands.serve import name_of
from clipper.cli.options import ApiKey, number
from clipper.cli.output import Output
from clipper.cli.process import settled
from clipper.cli.score.journal import FORMATS, Done, Job, Journal, read_sources
from clipper.cli.server import Server
from clipper.cli.starting import GivenOptions, find_start, foreground_server
from clipper.client import Clipper
from clipper.client.packaging.addresses import read_address
from clipper.client.packaging.models import package
from clipper.client.packaging.stores import fetch
from clipper.errors import Conflict, InvalidArgument, NotFound
from clipper.settings.home import find_home, read_token
from clipper.values.records import parse_type

# The SLO of the application on a job's own server: it bounds how many rows a replica gets at a time.
_OWN_SLO_MS = 1000.0
# The default number of replicas on a server of its own is one per processor, up to this: each takes the model's memory.
_MOST_REPLICAS = 4
# How often progress is drawn on a terminal, and printed elsewhere.
_TOLD_EVERY_S, _LOGGED_EVERY_S = 0.2, 10.0
# The exit status of a command that ^C ends.
_INTERRUPTED = 130
# The niceness of this process beside a server that answers queries: the queries come first.
_NICE = 19


class Asked(NamedTuple):
    """The version that answers: ``application`` is where it is asked."""

    application: str
    version: Version


def score(
    server: Server,
    model: Annotated[
        str,
        typer.Argument(
            help="An application with one model, a model or NAME:VERSION. Or a model file or address, which gets a "
            "server of its own for the job."
        ),
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files with inputs, in the order of the output: .csv, .jsonl or .parquet, a pattern in quotes, or "
            "addresses.",
            metavar="FILE...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write, of the same format as the input.", metavar="FILE")
    ],
    prefix: Annotated[
        str, typer.Option(help="What the names of the added columns begin with.", show_default=False)
    ] = "",
    replicas: Annotated[
        int | None,
        number(int, help="Replicas on a server of its own; by default one for each processor, 4 at most.", least=1),
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Write a file's rows again, with predictions for them. The same command goes on after it was stopped."""
    out = server.out
    sources = _sources(files, out)
    form = _form_of(sources, output)
    with ExitStack() as closing:
        journal = Journal(output)
        closing.callback(journal.close)
        if journal.is_complete and output.exists():  # it was killed once the output was in its place
            journal.clear()
            out.done(journal.done, f"{output} is complete: {journal.done.rows:,} rows")
            return
        if output.exists():
            raise Conflict(f"{output} exists: remove it, or name another file")
        is_file = _is_file(model)
        if is_file or (server.url is None and settled(find_home(server.home)) is None):
            serving = _own_server(out, find_home(server.home), model, replicas, journal.job, is_file=is_file)
            clipper, asked = closing.enter_context(serving)
        else:
            _go_last()
            clipper = server.connect(api_key)
            asked = find_asked(clipper, model, journal.job)
        try:
            done = _run(out, clipper, asked, sources, form, journal, prefix)
        except KeyboardInterrupt:
            out.warn("stopped: the same command goes on where this one was")
            raise typer.Exit(_INTERRUPTED) from None
    out.done(
        done,
        f"{done.rows:,} rows are in {output}" + (f", {done.failed:,} of them with an error" if done.failed else ""),
    )


def _go_last() -> None:
    """Let the server have the processors first. A kernel that schedules by session (autogroup) heeds niceness only
    within a session; a job with a session of its own, as cron and systemd start it, makes the session nice, too."""
    os.nice(_NICE)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICE))


def _run(
    out: Output, clipper: Clipper, asked: Asked, sources: Sequence[Path], form: str, journal: Journal, prefix: str
) -> Done:
    # Imported here: they need numpy, which takes longer to load than most commands run.
    from clipper.cli.score.inputs import InputMaker
    from clipper.cli.score.output import Layout
    from clipper.cli.score.parquet_output import check_alike
    from clipper.cli.score.run import Progress, score_files
    from clipper.cli.score.sources import reuse_memory

    reuse_memory()
    name, version = asked.application, asked.version
    output_type = version.output_type if journal.job is None else journal.job.output_type
    told = None if output_type is None else parse_type(output_type)
    job = Job(
        f"{name} {version.model}",
        version.version,
        read_sources(sources),
        prefix,
        output_type,
        str(version.created_at) if version.source is None else version.source,
    )
    maker = InputMaker(parse_type(clipper.input_type(name)))
    layout = Layout(form, sources[0], told, prefix)
    if form == "parquet":
        check_alike(sources)
    journal.begin(job, layout.header())
    if journal.done.rows:
        out.note(f"going on after {journal.done.rows:,} rows")
    with out.progress("reading") as progress:
        last, told_s = Progress(0, 0, 0.0, 0.0, None), time.monotonic()

        def report(now: Progress) -> None:
            nonlocal last, told_s
            last = now
            if time.monotonic() - told_s > (_TOLD_EVERY_S if sys.stderr.isatty() else _LOGGED_EVERY_S):
                told_s = time.monotonic()
                progress(str(now))

        done = score_files(
            sources,
            form,
            maker,
            layout,
            journal,
            lambda frame: clipper.score_block(name, version.version, frame),
            report,
        )
        made = journal.partial.with_name(journal.output.name + ".made") if form == "parquet" else None
        if made is not None:
            layout.make(sources, journal.partial, made)
        journal.finish(made)
    out.note(f"{last.rows_per_s:,.0f} rows/s by {version.model}:{version.version}")
    return done


def find_asked(clipper: Clipper, name: str, job: Job | None = None) -> Asked:
    """Find the version that an application, a model or ``NAME:VERSION`` means, and an application to ask it by.

    ``job``: one that goes on, with its version, though another may be current by now.

    Raises NotFound if there is none; InvalidArgument if an application has several models.
    """
    model, _, version = name.partition(":")
    applications = {each.name: each for each in clipper.applications()}
    if (application := applications.get(name)) is not None:
        links = [link for link in application.links if not link.shadow]
        if len(links) != 1:
            models = ", ".join(link.target for link in links)[:200] or "one of its steps'"
            raise InvalidArgument(
                f"application {name} is a pipeline or has a policy that chooses among models for each query, and rows "
                f"of a file are no queries: name a model ({models}) or NAME:VERSION"
            )
        model, version = links[0].model, links[0].version or ""
        by = name
    else:
        by = next((each.name for each in applications.values() if any(one.model == model for one in each.links)), "")
    known = clipper.model(model)
    version = version or (job.version if job is not None and job.asked == f"{by} {model}" else "")
    if not by:
        raise NotFound(f"no application has the model {model}: clipper app create {model} --model {model} makes one")
    for each in known.versions:
        if each.version == version or (not version and each.current):
            return Asked(by, each)
    raise NotFound(
        f"model {model} has no version {version or 'that is current'}: clipper model show {model} lists them"
    )


@contextmanager
def _own_server(
    out: Output, home: Path, model: str, replicas: int | None, job: Job | None, *, is_file: bool
) -> Iterator[tuple[Clipper, Asked]]:
    """Run a server for the job: with a model file in a home of its own, or with the models of the home."""
    with ExitStack() as closing:
        if is_file:
            home = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="clipper-score-")))
            artifact = closing.enter_context(package(model))
            out.warn(artifact.warning)
        start = find_start(out, home, GivenOptions({"query_port": 0, "management_port": 0}, {}), "serve")
        process = closing.enter_context(foreground_server(out, start))
        with out.progress("starting a server for the job") as progress:
            process.wait_until_ready()
            clipper = closing.enter_context(Clipper.connect(home=start.home, token=read_token(start.home)))
            if is_file:
                name = name_of(model.rsplit("/", 1)[-1].partition(":")[0])
                wanted = replicas or min(os.cpu_count() or 1, _MOST_REPLICAS)
                version = clipper.deploy(
                    name, artifact, progress=progress, replicas=wanted, version=artifact.digest[:16]
                )
                out.warn(version.warning)
                clipper.create_application(name, model=name, slo_ms=_OWN_SLO_MS)
                found = find_asked(clipper, name)
                # The version's name is the digest of the model's content, and each job has another server.
                asked = Asked(name, msgspec.structs.replace(found.version, created_at=0.0))
            else:
                asked = find_asked(clipper, model, job)
        yield clipper, asked


def _sources(names: Sequence[str], out: Output) -> list[Path]:
    found: list[Path] = []
    for name in names:
        address = read_address(name)
        if address is not None:
            with out.progress(f"fetching {address.shown}") as progress:
                fetched = fetch(address, {}, progress).path
            found += sorted(each for each in fetched.rglob("*") if each.is_file()) if fetched.is_dir() else [fetched]
        elif Path(name).exists():
            found.append(Path(name))
        else:
            matches = sorted(map(Path, glob.glob(name)))  # noqa: PTH207  # the pattern may be absolute
            if not matches:
                raise InvalidArgument(f"there is no file {name}")
            found += matches
    return found


def _is_file(model: str) -> bool:
    """Whether this is a model itself, and not the name of one: a path, an address, or code in this folder."""
    path, _, attribute = model.partition(":")
    return "/" in model or Path(path).exists() or (bool(attribute) and Path(f"{path}.py").exists())


def _form_of(sources: Sequence[Path], output: Path) -> str:
    """Return the format of all files. Raises InvalidArgument if they have several."""
    forms = {FORMATS.get(path.suffix.lower()) for path in (*sources, output)}
    form = forms.pop()
    if forms or form is None:
        raise InvalidArgument(
            "input and output must have one format: expected names that all end with .csv, .jsonl or .parquet; got "
            + ", ".join(str(path)[-60:] for path in (*sources[:3], output))
        )
    return form
