"""The port between the management API and the supervisor: everything that an operator can ask for.

Routes turn HTTP into these calls and results into JSON; they hold no rules. The supervisor implements them.
Every method runs on the supervisor's event loop and raises only ``ClipperError``s.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Literal, Protocol

from clipper.api.events import Events, Kind, Step
from clipper.api.reports import Report
from clipper.api.schemas import (
    Application,
    Contexts,
    CreatedKey,
    CreatedToken,
    Key,
    LearnedPolicy,
    LinkChange,
    Logs,
    Model,
    NewKey,
    NewToken,
    Replica,
    Status,
    Stopping,
    Token,
    Version,
)
from clipper.api.series import Series, SeriesOverview
from clipper.settings.application import ApplicationChange, NewApplication
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Deployment
from clipper.values.types import CLIPPER, Caller

# The caller whose call the present task carries out. Only operations read it, and pass it on: later work that a call
# started may run in the same task, but does not count as its caller's.
CALLER: ContextVar[Caller] = ContextVar("caller", default=CLIPPER)
# Waits of the present call's answer: for the disk of a registry that the call has changed.
UNSYNCED: ContextVar[set[Callable[[], Awaitable[None]]] | None] = ContextVar("unsynced", default=None)
# Calls of the query port.
Call = Literal["predict", "observe"]


class Operations(Protocol):
    """The operations that the supervisor carries out for an operator.

    ``NotFound`` is raised for an unknown name, ``Conflict`` for a name that is taken or a thing in use,
    ``InvalidArgument`` for a value outside its range, ``RegistryUnavailable`` if the registry cannot be written.
    """

    async def status(self) -> Status: ...

    async def history(self) -> list[Step]:
        """Return the latest events and decisions since the server's start, oldest first."""

    async def events(
        self, after: int | None, limit: int, kind: Kind | None, subject: str | None, who: str | None
    ) -> Events:
        """Return the first ``limit`` events after the event ``after``; the last ``limit`` if that is None."""

    async def series_overview(self) -> SeriesOverview: ...

    async def application_series(self, name: str, seconds: int) -> Series:
        """Return all series of the last ``seconds``, from 2 to 3600."""

    async def model_series(self, name: str, seconds: int) -> Series: ...

    async def has_artifact(self, digest: str) -> bool: ...

    async def add_artifact(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Stream a tar to disk, check its SHA-256, and unpack it. Return whether it is new."""

    async def list_applications(self) -> list[Application]: ...

    async def get_application(self, name: str) -> Application: ...

    async def create_application(self, new: NewApplication) -> Application:
        """Create an application. Return once every worker serves it."""

    async def check_application(self, new: NewApplication) -> None:
        """Raise what creating or changing the application would raise. Models that do not exist yet are no error."""

    async def change_application(self, name: str, change: ApplicationChange) -> Application: ...

    async def delete_application(self, name: str) -> None:
        """Delete an application. Its learned state is dropped as soon as the selection store can be written."""

    async def ask(self, application: str, call: Call, body: bytes, key: str | None) -> tuple[int, bytes]:
        """Pass a call on to the query port, with the application's ``key``. Return its status and its JSON.

        Raises ``Overloaded`` if too many calls are under way, ``Unavailable`` if the query port does not answer, and
        ``TooLarge`` if its answer is too large.
        """

    async def report(
        self, name: str, confidence: float | None, tolerance: float | None, context: str | None, by_context: bool
    ) -> Report:
        """Compare the application's models: over all queries or in one context, and by context with most feedback."""

    async def describe_policy(self, name: str, context: str | None) -> LearnedPolicy:
        """Return what the application's policy has learned. Raises ``Unavailable`` if no worker answers."""

    async def list_contexts(self, name: str, limit: int) -> Contexts:
        """Return the contexts with the latest feedback. Raises ``StoreUnavailable``, like ``delete_context``."""

    async def delete_context(self, name: str, context: str) -> None:
        """Forget what was learned in a context; every worker follows within moments."""

    async def link(self, application: str, model: str, change: LinkChange) -> Application: ...

    async def unlink(self, application: str, model: str) -> Application: ...

    async def list_models(self, names: Sequence[str] | None) -> list[Model]:
        """Return all models, or those of the named models that exist, sorted by name."""

    async def get_model(self, name: str) -> Model: ...

    async def delete_model(self, name: str) -> None:
        """Remove a model with its versions. Raises ``Conflict`` while an application links it."""

    async def deploy(self, model: str, deployment: Deployment) -> Version:
        """Register the version and start it; return at once, in state ``starting``.

        It is shown as ``ready`` only once every worker serves it and, if that was requested, it is current.
        """

    async def check_deployment(self, deployment: Deployment) -> None:
        """Raise what ``deploy`` would raise. The artifact is checked only if it is there: it may be uploaded later."""

    async def get_version(self, model: str, version: str) -> Version: ...

    async def load(self, application: str) -> None:
        """Give the unloaded versions of an application's models their replicas again. Return once they can answer."""

    async def unload(self, application: str) -> None:
        """Take the replicas from all versions of an application's models, which answer nothing until they are loaded.

        Raises ``Conflict`` if another application links one of the models.
        """

    async def list_deployments(self, model: str) -> dict[str, Deployment]:
        """Return the deployment that would make each version of a model again, by the version's name, oldest first.

        Its ``replicas`` are today's; ``make_current`` is False for a version that runs without having been current.
        """

    async def delete_version(self, model: str, version: str) -> None:
        """Remove a version. Raises ``Conflict`` while it is current or pinned."""

    async def rollback(self, model: str, version: str | None, allow_stopped: bool) -> Model:
        """Make the previous version, or the given one, current. Return once every worker serves it.

        Raises ``Conflict`` if there is none, or it was stopped and that is not allowed; ``ContainerFailed``.
        """

    async def scale(self, model: str, replicas: int | ReplicaRange, version: str | None) -> Version:
        """Set the number of replicas, or a range within which the load decides. Return at once: poll the version."""

    async def logs(
        self, model: str, version: str | None, replica: str | None, lines: int, after: Mapping[str, str]
    ) -> Logs:
        """Return the last lines of containers' logs, or the lines after the places in ``after``."""

    async def server_logs(self, name: str | None, lines: int, after: Mapping[str, str]) -> Logs:
        """Return the last lines of the log ``name``, or of the server's, its workers', access and slow-query logs."""

    async def list_replicas(self, models: Sequence[str] | None) -> list[Replica]: ...

    async def get_replica(self, replica_id: str) -> Replica: ...

    async def list_tokens(self) -> list[Token]:
        """Return the tokens by name, without the server's own token."""

    async def create_token(self, new: NewToken) -> CreatedToken:
        """Make a token. Raises ``Conflict`` if the name is taken, or if there are as many tokens as are allowed."""

    async def revoke_token(self, name: str) -> None: ...

    async def list_keys(self) -> list[Key]: ...

    async def create_key(self, new: NewKey) -> CreatedKey:
        """Make a key. Returns once every worker knows it. Raises ``Conflict`` like ``create_token``."""

    async def revoke_key(self, name: str) -> None:
        """Revoke a key. Returns once every worker refuses it."""

    async def metrics(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        """Return Prometheus text on the named applications and models, or on the whole server: ``Clipper.metrics``.

        Raises ``InvalidArgument`` if these are too many series, and ``Overloaded`` if too many scrapes wait.
        """

    async def why_not_ready(self) -> list[str]:
        """Return why the server is not ready to answer queries; empty if it is."""

    async def stop(self) -> Stopping:
        """Begin to stop, and return at once. A second call ends the drain delay."""
