"""The Python client: deploys models and asks predictions of a running server, over its two HTTP APIs.

    clipper = Clipper.connect()
    clipper.deploy("digits", fitted_estimator)
    clipper.create_application("digits", model="digits", slo_ms=20, default_output=0)
    clipper.predict("digits", [0.0] * 784).output

Every method raises a ``ClipperError``: the server's own by its code, or ``Unavailable`` if no server answers.
Every wait has a bound.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import UNSET, Struct, UnsetType

from clipper.errors import ClipperError, ContainerFailed, DeadlineExceeded, Unavailable
from clipper.home import find_home, read_place
from clipper.http_api import HttpApi, to_error
from clipper.management.schemas import (
    Application,
    ApplicationChange,
    Deployment,
    Failure,
    LinkChange,
    Logs,
    Model,
    NewApplication,
    Replica,
    Rollback,
    Scale,
    Status,
    Version,
)
from clipper.packaging import Artifact, Language, package
from clipper.snapshot import Batching, BatchingPolicy, Link

# The server bounds each start by the deployment's own time-out; this is for the rest: unpacking, linking, draining.
SETTLE_TIMEOUT_S = 60.0
# A drain waits for the queries in flight, and then for the containers.
STOP_TIMEOUT_S = 60.0
# The longest objective of an application, and room for the way there and back.
_PREDICT_TIMEOUT_S = 60.0
# Unpacking and checking 16 GiB takes minutes.
_UPLOAD_TIMEOUT_S = 600.0
_CRASH_LOG_LINES = 20
# A poll costs the server about a millisecond; a model that loads for minutes is not asked more often than the last.
_FIRST_POLL_S, _LAST_POLL_S = 0.02, 0.1

T = TypeVar("T")


class Prediction(Struct, frozen=True):
    """One answer.

    Attributes:
        output: any JSON.
        default: whether ``output`` is the application's default, because no model answered.
        confidence: from 0 to 1.
        default_reason: an error code, e.g. ``timeout``; None if the model answered.
        default_explanation: the same in words.
    """

    query_id: int
    output: Any
    default: bool
    confidence: float
    default_reason: str | None = None
    default_explanation: str | None = None


class _Predictions(Struct, frozen=True):
    batch_predictions: list[dict[str, Any]]


class Clipper:
    """A running server. Close it, or use it in a ``with`` block, to give its connections back."""

    def __init__(self, management_url: str, query_url: str) -> None:
        self._management = HttpApi(management_url)
        self._queries = HttpApi(query_url)

    @staticmethod
    def connect(url: str | None = None, home: Path | str | None = None) -> "Clipper":
        """Find a server and check that it answers.

        Args:
            url: its management API, e.g. ``http://host:1338``; if None, the server of ``home`` is meant.
            home: its directory; if None, ``CLIPPER_HOME``, else ``~/.clipper``.

        Raises:
            Unavailable: no server is there, or it does not answer.
        """
        if url is not None:
            return _connect_url(url)
        return _connect_home(find_home(home))

    def close(self) -> None:
        self._management.close()
        self._queries.close()

    def __enter__(self) -> "Clipper":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def query_url(self) -> str:
        return self._queries.url

    # Models

    def deploy(
        self,
        name: str,
        model: object,
        *,
        version: str | None = None,
        replicas: int = 1,
        input_type: str | None = None,
        batching: BatchingPolicy = "aimd",
        max_batch: int = 1024,
        batch_delay_ms: float = 0.0,
        cache: bool = True,
        make_current: bool = True,
        python: str | None = None,
        data: Path | str | None = None,
        language: Language = "python",
        memory_bytes: int | None = None,
        start_timeout_s: float = 60.0,
        wait: bool = True,
        progress: Callable[[str], None] | None = None,
    ) -> Version:
        """Deploy a version of a model, and wait until it serves.

        Args:
            name: the model's.
            model: a model file's path, ``"module:attribute"``, or a Python object: an estimator, a function over a
                batch, an object with ``predict_batch``. Or an ``Artifact``, which ``clipper.packaging`` makes of these.
            version: its name; the next free whole number if None.
            input_type: e.g. ``float64[784]``; what the model itself says if None.
            batch_delay_ms: how long a batch that is not full may wait for more.
            make_current: whether queries go to it from now on.
            python: the interpreter, on the server's machine, to run it with; the server's own if None.
            data: a file or folder that a ``module:Class`` gets as ``model_data``, and a program as ``--data``.
            language: ``binary``: ``model`` is the path of a program that speaks the container protocol.
            wait: False returns at once, in state ``starting``.
            progress: called with what is going on, for showing it.

        Raises:
            ContainerFailed: it cannot start; ``log_tail`` holds the container's last lines.
            DeadlineExceeded: it is neither ready nor failed in the time that it has.
        """
        tell = progress or _ignore
        tell("packing the model")
        # An artifact that the caller packed is the caller's to close.
        packed = nullcontext(model) if isinstance(model, Artifact) else package(model, data=data, language=language)
        with packed as artifact:
            self._upload(artifact, tell)
            deployment = Deployment(
                artifact=artifact.digest,
                loader=artifact.loader,
                target=artifact.target,
                data=artifact.data,
                version=version,
                input_type=input_type,
                replicas=replicas,
                python=python,
                batching=Batching(batching, max_batch, batch_delay_ms),
                cache=cache,
                make_current=make_current,
                start_timeout_s=start_timeout_s,
                memory_bytes=memory_bytes,
            )
        made = self._ask(Version, "POST", f"/models/{_part(name)}/versions", deployment)
        if not wait:
            return made
        tell(f"starting {name}:{made.version}")
        return self.wait_until_ready(name, made.version, start_timeout_s + SETTLE_TIMEOUT_S, made.replicas_wanted, tell)

    def wait_until_ready(
        self,
        model: str,
        version: str,
        timeout_s: float,
        replicas: int = 1,
        progress: Callable[[str], None] | None = None,
    ) -> Version:
        """Poll a version until it serves with that many replicas, all ready. Raises as ``deploy`` does."""
        tell = progress or _ignore
        for _ in _polls(timeout_s):
            now = self.version(model, version)
            ready = sum(replica.state == "ready" for replica in now.replicas)
            if now.state == "failed":
                raise ContainerFailed(f"{model}:{version} cannot start: {now.last_error}", list(now.log_tail))
            for replica in now.replicas:
                if replica.state == "crash_loop":
                    raise self._crash_loop(replica)
            # Replicas that are still to stop are among them.
            if now.state == "ready" and ready == len(now.replicas) == replicas:
                return now
            tell(f"{model}:{version} is {now.state}, {ready} of {replicas} replicas ready")
        raise DeadlineExceeded(
            f"{model}:{version} is {now.state} after {timeout_s:.0f} s with {ready} of {replicas} replicas ready"
            f"{_because(now)}; it is left as it is: see clipper model show {model}, clipper logs {model}"
        )

    def _crash_loop(self, replica: Replica) -> ContainerFailed:
        tails = self.logs(replica.model, version=replica.version, replica=replica.id, lines=_CRASH_LOG_LINES).lines
        cause = f"{replica.id} dies whenever it is started: {replica.last_error}; it is tried again every 30 s"
        return ContainerFailed(cause, [line for tail in tails.values() for line in tail])

    def models(self) -> list[Model]:
        return self._ask(list[Model], "GET", "/models")

    def model(self, name: str) -> Model:
        return self._ask(Model, "GET", f"/models/{_part(name)}")

    def version(self, model: str, version: str) -> Version:
        return self._ask(Version, "GET", f"/models/{_part(model)}/versions/{_part(version)}")

    def delete_model(self, name: str, version: str | None = None) -> None:
        """Remove a model with all its versions, or one version of it."""
        path = f"/models/{_part(name)}"
        self._management.call("DELETE", path if version is None else f"{path}/versions/{_part(version)}")

    def rollback(self, name: str, version: str | None = None) -> Model:
        """Make the previous, or the given, version current. Returns once every worker serves it."""
        # A sleeping version starts first, within its own deployment's time-out, which may be any.
        return self._ask(Model, "POST", f"/models/{_part(name)}/rollback", Rollback(version), _UPLOAD_TIMEOUT_S)

    def scale(self, name: str, replicas: int, version: str | None = None) -> Version:
        """Set how many replicas a version has. Returns at once; ``wait_until_ready`` waits for them."""
        return self._ask(Version, "POST", f"/models/{_part(name)}/scale", Scale(replicas, version))

    def logs(self, name: str, *, version: str | None = None, replica: str | None = None, lines: int = 100) -> Logs:
        """The last lines of each replica's log, oldest first."""
        query = {"lines": lines, "version": version, "replica": replica}
        return self._ask(Logs, "GET", f"/models/{_part(name)}/logs{_query(query)}")

    def replicas(self) -> list[Replica]:
        return self._ask(list[Replica], "GET", "/replicas")

    def replica(self, replica_id: str) -> Replica:
        return self._ask(Replica, "GET", f"/replicas/{_part(replica_id)}")

    # Applications

    def create_application(
        self,
        name: str,
        *,
        model: str | None = None,
        version: str | None = None,
        slo_ms: float = 100.0,
        default_output: Any | UnsetType = UNSET,
        input_type: str | None = None,
        policy: str = "single",
    ) -> Application:
        """Create an application. Returns once every worker serves it.

        Args:
            model: the model to link; it follows its current version, or ``version`` if that is given.
            slo_ms: within how many milliseconds a query is answered.
            default_output: answered when no model has; any JSON, also None. Left out: such queries are errors.
            input_type: of its queries; the model's if None.
        """
        links = () if model is None else (Link(model, version),)
        new = NewApplication(name, slo_ms, input_type, default_output, policy, links)
        return self._ask(Application, "POST", "/applications", new)

    def applications(self) -> list[Application]:
        return self._ask(list[Application], "GET", "/applications")

    def application(self, name: str) -> Application:
        return self._ask(Application, "GET", f"/applications/{_part(name)}")

    def change_application(
        self, name: str, *, slo_ms: float | UnsetType = UNSET, default_output: Any | UnsetType = UNSET
    ) -> Application:
        change = ApplicationChange(slo_ms, default_output)
        return self._ask(Application, "PATCH", f"/applications/{_part(name)}", change)

    def delete_application(self, name: str) -> None:
        self._management.call("DELETE", f"/applications/{_part(name)}")

    def link(self, application: str, model: str, version: str | None = None) -> Application:
        """Link a model: its current version, whichever that is, or ``version`` for good."""
        return self._ask(Application, "PUT", _link_path(application, model), LinkChange(version))

    def unlink(self, application: str, model: str) -> Application:
        return self._ask(Application, "DELETE", _link_path(application, model))

    # Queries

    def predict(
        self,
        application: str,
        input: Any,  # noqa: A002
        *,
        version: str | None = None,
        context: str | None = None,
    ) -> Prediction:
        """Ask for one prediction. ``input`` may be a list, number, text, bytes or numpy array."""
        body = _query_body({"input": input}, version, context)
        answer = self._queries.call("POST", f"/{_part(application)}/predict", body, _PREDICT_TIMEOUT_S)
        return msgspec.json.decode(answer, type=Prediction)

    def predict_batch(
        self, application: str, inputs: Sequence[Any], *, version: str | None = None, context: str | None = None
    ) -> list[Prediction | ClipperError]:
        """Ask for one prediction an input, in the same order.

        An input that got neither an output nor a default has its error in its place, so that the others are not lost.
        """
        body = _query_body({"input_batch": inputs}, version, context)
        answer = self._queries.call("POST", f"/{_part(application)}/predict", body, _PREDICT_TIMEOUT_S)
        parts = msgspec.json.decode(answer, type=_Predictions).batch_predictions
        return [_prediction_or_error(part) for part in parts]

    def observe(self, application: str, input: Any, label: Any, *, context: str | None = None) -> None:  # noqa: A002
        """Tell what the right output was, for the application's policy to learn from."""
        body = _query_body({"input": input, "label": label}, None, context)
        self._queries.call("POST", f"/{_part(application)}/observe", body, _PREDICT_TIMEOUT_S)

    # The server

    def status(self) -> Status:
        return self._ask(Status, "GET", "/status")

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return self._management.call("GET", "/metrics").decode()

    def stop(self, *, wait: bool = True) -> None:
        """Stop the server: queries in flight are answered first.

        Raises:
            DeadlineExceeded: it still answers after ``STOP_TIMEOUT_S``.
        """
        self._management.call("POST", "/stop")
        if not wait:
            return
        for _ in _polls(STOP_TIMEOUT_S):
            try:
                self._management.call("GET", "/health/live")
            except Unavailable:
                return
        raise DeadlineExceeded(f"the server still answers {STOP_TIMEOUT_S:.0f} s after it was told to stop")

    def _upload(self, artifact: Artifact, tell: Callable[[str], None]) -> None:
        path = f"/artifacts/{artifact.digest}"
        if self._management.has(path):
            tell("the server has this artifact already")
            return
        tell(f"sending {artifact.size_bytes / 1e6:.1f} MB")
        self._management.call("PUT", path, artifact.chunks(), _UPLOAD_TIMEOUT_S)

    def _ask(
        self, kind: type[T], method: str, path: str, body: Struct | None = None, timeout_s: float = SETTLE_TIMEOUT_S
    ) -> T:
        content = None if body is None else msgspec.json.encode(body)
        return msgspec.json.decode(self._management.call(method, path, content, timeout_s), type=kind)


def _connect_home(home: Path) -> Clipper:
    """The file may be left from a server that was killed, and its port be another server's by now."""
    place = read_place(home)
    clipper = Clipper(place.management_url, place.query_url)
    there = Path(clipper.status().home)
    if there.resolve() != home.resolve():
        clipper.close()
        raise Unavailable(
            f"no Clipper runs in {home}: the one at {place.management_url} is that of {there}; "
            f"start it with clipper start --home {home}"
        )
    return clipper


def _connect_url(url: str) -> Clipper:
    """The server tells its query port; its host is the one it was reached by, since it may know itself by another."""
    api = HttpApi(url)
    try:
        status = msgspec.json.decode(api.call("GET", "/status"), type=Status)
    finally:
        api.close()
    told, host = urlsplit(status.query_url), urlsplit(api.url).hostname or ""
    netloc = f"[{host}]:{told.port}" if ":" in host else f"{host}:{told.port}"
    return Clipper(api.url, told._replace(netloc=netloc).geturl())


def _prediction_or_error(part: dict[str, Any]) -> Prediction | ClipperError:
    if "error" in part:
        return to_error(msgspec.convert(part, Failure))
    return msgspec.convert(part, Prediction)


def _part(name: str) -> str:
    return quote(name, safe="")


def _link_path(application: str, model: str) -> str:
    return f"/applications/{_part(application)}/links/{_part(model)}"


def _query(parameters: Mapping[str, object]) -> str:
    given = [f"{name}={_part(str(value))}" for name, value in parameters.items() if value is not None]
    return "?" + "&".join(given)


def _query_body(body: dict[str, Any], version: str | None, context: str | None) -> bytes:
    options = {"version": version, "context": context}
    body |= {name: value for name, value in options.items() if value is not None}
    return msgspec.json.encode(body, enc_hook=_to_list)


def _to_list(value: Any) -> Any:
    """Numpy arrays and scalars, without importing numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise NotImplementedError


def _because(version: Version) -> str:
    return f" ({version.last_error})" if version.last_error else ""


def _polls(timeout_s: float) -> Iterator[None]:
    """Yield at growing intervals until the time is over, at least once."""
    deadline_s, interval_s = time.monotonic() + timeout_s, _FIRST_POLL_S
    while True:
        yield
        if time.monotonic() >= deadline_s:
            return
        time.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _LAST_POLL_S)


def _ignore(_text: str) -> None:
    pass
