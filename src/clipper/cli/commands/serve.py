"""``clipper serve``: a server, a model and an application in one foreground command."""

import json
import math
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from clipper.api.schemas import Application, Version
from clipper.base.whole_files import Stamp, stamp
from clipper.cli.manifest.keys import SourceKeys
from clipper.cli.options import AsJson, EnvFiles, Home, read_env_files
from clipper.cli.output import Output, write_error
from clipper.cli.process import settled
from clipper.cli.settings import Given, options_of, with_settings
from clipper.cli.starting import find_start, foreground_server, given_options
from clipper.client import Clipper
from clipper.client.packaging.artifact import Artifact
from clipper.client.packaging.models import package
from clipper.errors import ClipperError, Conflict, InvalidArgument, NotFound
from clipper.settings.application import ApplicationSettings, Link
from clipper.settings.home import CERTIFICATE_NAME, find_home, read_token
from clipper.settings.server import ServerSettings
from clipper.settings.version import Deployment
from clipper.values.inputs.examples import example_input
from clipper.values.records import RecordType, parse_type
from clipper.values.types import DType, check_name

_WATCH_S = 0.2


@with_settings(
    application=options_of(ApplicationSettings, only=("slo_ms", "default_output")),
    deployment=options_of(Deployment, without=("version", "make_current", "manager")),  # the server's is taken
    source=options_of(SourceKeys, only=("requirements", "data", "framework", "credentials")),
    server=options_of(ServerSettings),
)
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model file or folder, or module:attribute with its code here.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model and the application.", show_default="from the model's file or module"),
    ] = None,
    *,
    application: Given,
    deployment: Given,
    source: Given,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Deploy the model again, as a new version, each time that its files change."),
    ] = False,
    env_file: EnvFiles = None,
    home: Home = None,
    server: Given,
    as_json: AsJson = False,
) -> None:
    """Start a server, deploy a model and create its application, in the foreground. ^C drains and stops."""
    # SIGINT, too: a shell without job control starts background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    out, root = Output(as_json), find_home(home)
    deployment["env"] = read_env_files(env_file) | deployment.get("env", {})
    start = find_start(out, root, given_options(context, server, None), "serve")
    chosen = _checked(name or name_of(model))
    if now := settled(start.home):
        raise Conflict(
            f"Clipper is running already at {now.management_url}: clipper deploy {chosen} {model} adds the model "
            "to it; or give another --home and ports"
        )
    # The model is packed before the server starts, so that a wrong file name costs no start.
    pack = partial(package, model, **source)
    with pack() as artifact, foreground_server(out, start) as process:
        out.warn(artifact.warning)
        others = [source["requirements"]] if "requirements" in source else []
        reloader = _Reloader(out, start.home, pack, artifact, others) if reload else None
        with out.progress("starting the server") as progress:
            process.wait_until_ready()
            with Clipper.connect(home=start.home, token=read_token(start.home)) as clipper:
                version = clipper.deploy(chosen, artifact, progress=progress, **deployment)
                asked = _application(clipper, chosen, application)
        out.warn(version.warning)
        shown = start.home / CERTIFICATE_NAME if "tls_cert" in server else None
        _print_served(out, clipper.query_url, version, asked, shown, needs_key="api_keys" in server)
        while True:  # until ^C, or until the server ends on its own, which is an error
            process.check_alive("while it served")
            time.sleep(_WATCH_S)
            if reloader is not None:
                version = reloader.look(version, deployment)


class _Reloader:
    """Deploys a model again when its files have changed. If that fails, the version before goes on serving.

    Args:
        pack: packs the files.
        first: the packed files of the first version.
        others: files that are not in the artifact in their own form.
    """

    def __init__(
        self, out: Output, home: Path, pack: Callable[[], Artifact], first: Artifact, others: Sequence[Path]
    ) -> None:
        self._out, self._home, self._pack, self._others = out, home, pack, others
        self._digest = first.digest
        self._watch = Watch([*first.sources, *others])

    def look(self, served: Version, deployment: Given) -> Version:
        """Return the version that serves from now on: ``served``, or a new version of the changed files."""
        if not self._watch.has_changed():
            return served
        out = self._out
        try:
            with self._pack() as artifact, Clipper.connect(home=self._home, token=read_token(self._home)) as clipper:
                self._watch.follow([*artifact.sources, *self._others])
                if artifact.digest == self._digest:
                    return served
                self._digest = artifact.digest
                with out.progress(f"the files of {served.model} have changed") as progress:
                    made = clipper.deploy(served.model, artifact, progress=progress, **deployment)
        except (ClipperError, OSError) as error:  # OSError: a file is being replaced just now
            write_error(error if isinstance(error, ClipperError) else InvalidArgument(str(error)))
            out.warn(f"{served.model}:{served.version} keeps serving until a file changes again")
            return served
        out.warn(made.warning)
        out.line(f"{made.model}:{made.version} is served")
        return made


def _checked(name: str) -> str:
    try:
        return check_name("model", name)
    except InvalidArgument as error:
        raise typer.BadParameter(str(error), param_hint="--name") from error


def _print_served(
    out: Output,
    query_url: str,
    version: Version,
    application: Application,
    certificate: Path | None,
    *,
    needs_key: bool,
) -> None:
    name = application.name
    result = {"query_url": f"{query_url}/{name}/predict", "version": version, "application": application}
    curl = curl_line(query_url, name, application.input_type, certificate)
    if needs_key or application.require_key:
        curl = f'export CLIPPER_API_KEY=$(clipper key create me)\n  {curl} -H "Authorization: Bearer $CLIPPER_API_KEY"'
    text = f"{name}:{version.version} is served within {application.slo_ms:g} ms; try:\n\n  {curl}\n"
    out.done(result, text, "^C drains and stops")


def name_of(model: str) -> str:
    """Make a valid name from a file's stem or a module's last part: ``My Model.joblib`` gives ``my-model``."""
    stem = model.split(":")[0].rsplit(".", 1)[-1] if ":" in model else Path(model).stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63].rstrip("-._") or "model"


def _application(clipper: Clipper, name: str, settings: Given) -> Application:
    """Create the application of that name, or change it to the given settings."""
    try:
        found = clipper.application(name)
    except NotFound:
        return clipper.create_application(name, model=name, **settings)
    if Link(name) not in found.links:
        clipper.link(name, name)
    return clipper.change_application(name, **settings)


class Watch:
    """Watches files, and the folders that they are in, since a change may add a file.

    A change is reported once it is over, when two looks in a row see the same: editors write in steps, and training
    scripts for seconds.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._known: dict[Path, Stamp | None] = {}
        self._last: dict[Path, Stamp | None] = {}
        self.follow(files)

    def follow(self, files: Iterable[Path]) -> None:
        """Watch these files from now on. A change of the files that were watched before is not forgotten."""
        known = self._known
        paths = {path for file in files for path in (file, file.parent)}
        self._known = {path: known[path] if path in known else stamp(path) for path in paths}
        self._last = dict(self._known)

    def has_changed(self) -> bool:
        """Look again. Each change is reported once."""
        now = {path: stamp(path) for path in self._known}
        is_over, self._last = now == self._last, now
        if now == self._known or not is_over:
            return False
        self._known = now
        return True


# At most this many elements are written out; for longer inputs the line has a short program, to stay readable.
_MAX_ELEMENTS = 16
# Length of open dimensions; any length would do.
_OPEN_LENGTH = 3
# The element to try by type; 0 for other types. The bytes are 0, 1 and 2 in base64.
_ZEROS = {DType.STRING: "some text", DType.BYTES: "AAEC", DType.BOOL: False, DType.FLOAT32: 0.0, DType.FLOAT64: 0.0}


def curl_line(query_url: str, application: str, input_type: str, certificate: Path | None = None) -> str:
    """Write a shell line that asks for a prediction; ``certificate`` is the server's, if it uses TLS."""
    url = f"{query_url}/{application}/predict"
    if certificate is not None:
        url = f"--cacert {shlex.quote(str(certificate))} {url}"
    kind = parse_type(input_type)
    if isinstance(kind, RecordType):
        (record,) = example_input(kind) or ({},)
        return f"curl {url} -d {shlex.quote(json.dumps({'input': record}, ensure_ascii=False))}"
    lengths = [length or _OPEN_LENGTH for length in kind.shape]
    value: Any = _ZEROS.get(kind.dtype, 0)
    expression = str(value)
    for length in reversed(lengths):
        value, expression = [value] * length, f"[{expression}]*{length}"
    if math.prod(lengths) <= _MAX_ELEMENTS:
        return f"curl {url} -d '{json.dumps({'input': value})}'"
    program = f'import json; print(json.dumps({{"input": {expression}}}))'
    return f"python3 -c '{program}' | curl {url} -d @-"
