"""The client's methods for models: deploy, watch, roll back, scale, remove."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Unpack

from msgspec.structs import replace

from clipper.api.schemas import Logs, Model, Replica, Rollback, Scale, Version
from clipper.client.calls import (
    PREPARE_TIMEOUT_S,
    SETTLE_TIMEOUT_S,
    Calls,
    ignore,
    looks,
    part,
    query_string,
)
from clipper.client.packaging.artifact import Artifact
from clipper.client.packaging.models import Language, package
from clipper.errors import Conflict, ContainerFailed, DeadlineExceeded, InvalidArgument, NotFound
from clipper.settings.fields import settings_of
from clipper.settings.replicas import ReplicaRange
from clipper.settings.variables import secret_of
from clipper.settings.version import MOST_START_TIMES, Batching, Deployment, DeploymentOptions
from clipper.values.types import Framework

_CRASH_LOG_LINES = 20


class Models(Calls):
    def deploy(
        self,
        name: str,
        model: object,
        *,
        data: Path | str | None = None,
        language: Language = "python",
        framework: Framework | None = None,
        requirements: Path | str | Sequence[str] | None = None,
        credentials: Mapping[str, str] | str | None = None,
        wait: bool = True,
        progress: Callable[[str], None] | None = None,
        **settings: Unpack[DeploymentOptions],
    ) -> Version:
        """Deploy a version of a model, and wait until it serves.

        Args:
            name: the model's name.
            model: the path of a model file or folder, or its address, e.g. ``s3://bucket/model.joblib``, from which
                this process fetches it; ``"module:attribute"``; a Python object, which is an estimator, a
                function over a batch, or an object with ``predict_batch``; or an ``Artifact``, which
                ``clipper.client.packaging`` makes from any of these.
            data: a file or folder that a ``module:Class`` gets as ``model_data``, and a program as ``--data``; or the
                second file of a framework's model that has two.
            language: with ``binary``, ``model`` is the path of a program that speaks the container protocol; with
                ``image``, the name of a Docker image that contains one, for the manager ``docker``.
            framework: the framework that loads the file; None means that Clipper recognises it.
            requirements: the path of a requirements file, or its lines, from which an environment is built; None means
                the requirements that the model's own file states.
            credentials: variables that the library of the address's store reads, or the name of a secret of this
                machine with lines ``NAME=VALUE``; None means what is set already.
            wait: if False, return at once, in state ``starting``.
            progress: called with a text for each step.
            settings: e.g. ``replicas=2, cpus=1``: how the version runs and how queries come to it.
                ``settings.version`` has all settings with their defaults, and ``clipper deploy --help`` explains them.

        Raises:
            Conflict: a rollback or a later deployment took the version's place while it started.
            ContainerFailed: the version cannot start; ``log_tail`` has the container's last lines.
            DeadlineExceeded: the version is neither ready nor failed in time.
        """
        report = progress or ignore
        report("packing the model")
        # If the caller packed the artifact, the caller closes it.
        packed = (
            nullcontext(model)
            if isinstance(model, Artifact)
            else package(
                model,
                data=data,
                language=language,
                framework=framework,
                requirements=requirements,
                credentials=credentials,
                progress=report,
            )
        )
        with packed as artifact:
            self._upload(artifact, report)
            deployment = _deployment(artifact, settings)
        return self._deployed(name, deployment, report, wait=wait)

    def redeploy(
        self,
        name: str,
        *,
        without: Sequence[str] = (),
        wait: bool = True,
        progress: Callable[[str], None] | None = None,
        **settings: Unpack[DeploymentOptions],
    ) -> Version:
        """Deploy a model's current version again, as a new version of the same artifact with other settings.

        Args:
            name: the model's name.
            without: variables that the new version does not have, from ``env`` or ``secrets``.
            wait: as in ``deploy``.
            progress: as in ``deploy``.
            settings: the settings to change. ``env`` and ``secrets`` are added to the variables that are there.

        Raises the errors of ``deploy``; Conflict if the model has no current version.
        """
        current = self.model(name).current
        if current is None:
            raise Conflict(f"model {name!r} has no current version to deploy again: deploy its file")
        before = self.deployments(name)[current]
        env = settings.pop("env", {})
        secrets = {secret_of(text)[0]: text for text in settings.pop("secrets", ())}
        old_secrets = {secret_of(text)[0]: text for text in before.secrets}
        if unknown := sorted({*without} - {*before.env, *old_secrets}):
            raise InvalidArgument(f"version {current} of model {name!r} has no variable {unknown[0]}")
        kept = {variable: text for variable, text in old_secrets.items() if variable not in {*without, *env}}
        changed = replace(
            before,
            version=None,
            make_current=True,
            env={key: value for key, value in (before.env | env).items() if key not in {*without, *secrets}},
            secrets=tuple((kept | secrets).values()),
        )
        return self._deployed(name, with_settings(changed, settings), progress or ignore, wait=wait)

    def _deployed(self, name: str, deployment: Deployment, report: Callable[[str], None], *, wait: bool) -> Version:
        made = self._ask(Version, "POST", f"/models/{part(name)}/versions", deployment)
        if not wait:
            return made
        report(f"starting {name}:{made.version}")
        timeout_s = MOST_START_TIMES * deployment.start_timeout_s + SETTLE_TIMEOUT_S
        return self.wait_until_ready(name, made.version, timeout_s, report)

    def check_deployment(self, artifact: Artifact, **settings: Unpack[DeploymentOptions]) -> None:
        """Raise what deploying the artifact would raise before it starts; nothing is sent or changed."""
        self._send("POST", "/checks/deployment", _deployment(artifact, settings))

    def wait_until_ready(
        self,
        model: str,
        version: str,
        timeout_s: float,
        progress: Callable[[str], None] | None = None,
    ) -> Version:
        """Poll a version until it serves with its target number of replicas. Raises the errors of ``deploy``.

        The time begins when the version's environment is ready.
        """
        report = progress or ignore
        self._wait_until_prepared(model, version, report)
        for now in looks(timeout_s, lambda: self.version(model, version), report):
            ready, replicas = now.ready_replicas, now.replicas_wanted
            if now.state == "failed":
                raise ContainerFailed(f"{model}:{version} cannot start: {now.last_error}", list(now.log_tail))
            if now.state == "sleeping":
                raise Conflict(
                    f"{model}:{version} does not run: a rollback or a later deployment took its place; "
                    f"clipper model rollback {model} --to {version} starts it again"
                )
            for replica in now.replicas:
                if replica.state == "crash_loop":
                    raise self._crash_loop(replica)
            # ``now.replicas`` includes replicas that are about to stop.
            if now.state in ("ready", "asleep", "unloaded") and ready == len(now.replicas) == replicas:
                return now
            report(f"{model}:{version} is {now.state}, {ready} of {replicas} replicas ready")
        why = f" ({now.last_error})" if now.last_error else ""
        raise DeadlineExceeded(
            f"{model}:{version} is {now.state} after {timeout_s:.0f} s with {ready} of {replicas} replicas ready"
            f"{why}; nothing is undone: see clipper model show {model}, clipper logs {model}"
        )

    def _wait_until_prepared(self, model: str, version: str, report: Callable[[str], None]) -> None:
        """Poll until the version's containers start or it has failed, at most as long as a build may take."""
        for now in looks(PREPARE_TIMEOUT_S, lambda: self.version(model, version), report):
            if now.state != "starting" or (now.replicas and now.progress is None):
                return
            report(f"{model}:{version}: {now.progress or now.state}")

    def _crash_loop(self, replica: Replica) -> ContainerFailed:
        tails: Mapping[str, Sequence[str]] = {}
        with suppress(NotFound):  # a container that could not even be started has no log
            tails = self.logs(replica.model, version=replica.version, replica=replica.id, lines=_CRASH_LOG_LINES).lines
        cause = f"{replica.id} dies each time it starts: {replica.last_error}; it is tried again every 30 s"
        return ContainerFailed(cause, [line for tail in tails.values() for line in tail])

    def upload(self, artifact: Artifact) -> None:
        """Send an artifact, unless the server has it."""
        self._upload(artifact, ignore)

    def has_artifact(self, sha256: str) -> bool:
        return self._management.has(f"/artifacts/{part(sha256)}")

    def models(self, names: list[str] | None = None) -> list[Model]:
        """Return all models, or those of the given names that exist."""
        return self._ask(list[Model], "GET", f"/models{query_string({'name': names})}")

    def model(self, name: str) -> Model:
        return self._ask(Model, "GET", f"/models/{part(name)}")

    def version(self, model: str, version: str) -> Version:
        return self._ask(Version, "GET", f"/models/{part(model)}/versions/{part(version)}")

    def deployments(self, model: str) -> dict[str, Deployment]:
        """Return the deployments that would make each version of a model again, by version, oldest first."""
        return self._ask(dict[str, Deployment], "GET", f"/models/{part(model)}/deployments")

    def delete_model(self, name: str, version: str | None = None) -> None:
        """Remove a model with all its versions, or only the given version."""
        path = f"/models/{part(name)}"
        self._management.call("DELETE", path if version is None else f"{path}/versions/{part(version)}")

    def rollback(self, name: str, version: str | None = None, *, allow_stopped: bool = False) -> Model:
        """Make the previous version, or the given version, current. Returns once every worker serves it.

        Args:
            allow_stopped: go to ``version`` even if a guardrail stopped it: see ``Version.stopped``.
        """
        # A sleeping version has to start first, and its environment may have to be built again.
        return self._ask(
            Model, "POST", f"/models/{part(name)}/rollback", Rollback(version, allow_stopped), PREPARE_TIMEOUT_S
        )

    def scale(self, name: str, replicas: int | ReplicaRange, version: str | None = None) -> Version:
        """Set how many replicas a version has, or let its load decide within a range.

        Returns at once; ``wait_until_ready`` waits for the replicas.
        """
        return self._ask(Version, "POST", f"/models/{part(name)}/scale", Scale(replicas, version))

    def logs(
        self,
        name: str,
        *,
        version: str | None = None,
        replica: str | None = None,
        lines: int = 100,
        after: Logs | None = None,
    ) -> Logs:
        """Return the last lines of each replica's log, oldest first; or the lines since the answer ``after``."""
        query = {"lines": lines, "version": version, "replica": replica, "after": places(after)}
        return self._ask(Logs, "GET", f"/models/{part(name)}/logs{query_string(query)}")

    def server_logs(self, name: str | None = None, *, lines: int = 100, after: Logs | None = None) -> Logs:
        """Return lines as ``logs`` does, of the server's and its workers' logs, or of one log, e.g. ``worker-0``."""
        query = {"lines": lines, "name": name, "after": places(after)}
        return self._ask(Logs, "GET", f"/logs{query_string(query)}")

    def replicas(self, models: list[str] | None = None) -> list[Replica]:
        """Return all replicas, or those of the given models."""
        return self._ask(list[Replica], "GET", f"/replicas{query_string({'model': models})}")

    def replica(self, replica_id: str) -> Replica:
        return self._ask(Replica, "GET", f"/replicas/{part(replica_id)}")


def places(after: Logs | None) -> list[str]:
    """Return the places where an earlier answer ends, as the parameter ``after``."""
    return [] if after is None else [f"{name}={place}" for name, place in after.places.items()]


def _deployment(artifact: Artifact, settings: DeploymentOptions) -> Deployment:
    return with_settings(Deployment(**artifact.deployed), settings)


def with_settings(deployment: Deployment, settings: DeploymentOptions) -> Deployment:
    """Return the deployment with these settings, too."""
    options: dict[str, Any] = {**settings}
    # On the wire the options of batching are one struct.
    batching = {one.name: options.pop(one.keyword) for one in settings_of(Batching) if one.keyword in options}
    return replace(deployment, batching=replace(deployment.batching, **batching), **options)
