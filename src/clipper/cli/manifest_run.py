"""Runs a plan: models first, some at a time, then applications and keys, and deletions if all else was done."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

from clipper.cli.manifest.manifest import Manifest, WantedApplication, WantedModel
from clipper.cli.manifest.plan import Packed, model_steps
from clipper.cli.manifest.steps import (
    ActualModel,
    ChangeApplication,
    CreateApplication,
    Delete,
    Deploy,
    MakeCurrent,
    Obstacle,
    Plan,
    PutKey,
    Scale,
    Step,
)
from clipper.cli.manifest_facts import ask_model, packed_code, packed_version
from clipper.client import Clipper
from clipper.client.calls import SETTLE_TIMEOUT_S
from clipper.errors import ClipperError, Conflict, NotFound, Unavailable
from clipper.settings.version import MOST_START_TIMES

# Each deployment loads a model, and perhaps builds its environment, on the same processors. But like a new
# application, it also waits for the disk of a registry in Redis, which writes once a second for all waiting changes.
STEPS_AT_ONCE = 10

T = TypeVar("T")
R = TypeVar("R")
Status = Literal["done", "failed", "skipped"]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a step. ``text`` says what was done, or why not. ``error`` is set if a call failed."""

    subject: str
    status: Status
    text: str
    error: ClipperError | None = None


class Run:
    """A run of a plan. ``folder`` is the file's."""

    def __init__(self, clipper: Clipper, wanted: Manifest, packed: Packed, folder: Path) -> None:
        self._clipper = clipper
        self._wanted = {model.name: model for model in wanted.models or ()}
        self._packed = packed
        self._folder = folder
        self._stopping = threading.Event()
        self._failed_models: set[str] = set()

    def outcomes(self, plan: Plan, progress: Tell) -> Iterator[Outcome]:
        """Do the plan's steps; yield each outcome as soon as it is known. ^C ends the run before the next step."""
        has_failed = bool(plan.obstacles)
        self._failed_models |= {obstacle.model for obstacle in plan.obstacles if obstacle.model is not None}
        yield from (Outcome(obstacle.subject, "failed", obstacle.reason) for obstacle in plan.obstacles)
        for outcome in self._models(plan, progress):
            has_failed |= outcome.status == "failed"
            yield outcome
        for steps in _side_by_side(plan.others):
            for outcome in self._at_once(steps, lambda step: self._other(step, progress)):
                has_failed |= outcome.status != "done"
                yield outcome
        for deletion in plan.deletions:
            if has_failed:
                yield Outcome(deletion.subject, "skipped", "stays, because not all of the file could be done")
            else:
                yield self._tried(deletion, progress)

    def _models(self, plan: Plan, progress: Tell) -> Iterator[Outcome]:
        names = [name for name in plan.models if name not in self._failed_models]
        for outcomes, name in zip(self._at_once(names, lambda name: self._model(name, progress)), names):
            if any(outcome.status == "failed" for outcome in outcomes):
                self._failed_models.add(name)
            yield from outcomes

    def _other(self, step: Step, progress: Tell) -> Outcome:
        if failed := sorted(step.needs & self._failed_models):
            return Outcome(step.subject, "skipped", f"stays as it is, because model {', '.join(failed)} failed")
        return self._tried(step, progress)

    def _at_once(self, subjects: Sequence[T], do: Callable[[T], R]) -> Iterator[R]:
        """Do some at a time, and yield the results in order."""
        executor = ThreadPoolExecutor(STEPS_AT_ONCE, thread_name_prefix="apply")
        try:
            yield from executor.map(do, subjects)
        except BaseException:
            # On ^C, too: otherwise the threads would continue until their versions are ready.
            self._stopping.set()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def _model(self, name: str, progress: Tell) -> list[Outcome]:
        """Do what a model needs now: since the plan was made, somebody else may have done the same, or other things.

        So if two users apply the same file at once, the later finds the version of the earlier, unless both look at the
        same moment.
        """
        obstacles: list[Obstacle] = []
        try:
            steps = self._steps_now(self._wanted[name], obstacles)
        except ClipperError as error:
            return [Outcome(f"model {name}", "failed", str(error), error)]
        if obstacles:
            return [Outcome(obstacle.subject, "failed", obstacle.reason) for obstacle in obstacles]
        outcomes: list[Outcome] = []
        for step in steps:
            if failed := [one.subject for one in outcomes if one.status == "failed"]:
                outcomes.append(Outcome(step.subject, "skipped", f"stays, because {failed[0]} failed"))
                continue
            outcome = self._tried(step, progress)
            if isinstance(outcome.error, Conflict) and self._is_done(self._wanted[name]):
                # A later deployment of the same took the place of this one.
                outcome = Outcome(step.subject, "done", "matches the file already")
            outcomes.append(outcome)
        return outcomes or [Outcome(f"model {name}", "done", "matches the file already")]

    def _is_done(self, wanted: WantedModel) -> bool:
        obstacles: list[Obstacle] = []
        try:
            return not self._steps_now(wanted, obstacles) and not obstacles
        except ClipperError:
            return False

    def _steps_now(self, wanted: WantedModel, obstacles: list[Obstacle]) -> Sequence[Step]:
        try:
            actual: ActualModel | None = ask_model(self._clipper, wanted.name)
        except NotFound:
            actual = None
        return model_steps(wanted, self._packed, actual, obstacles)

    def _tried(self, step: Step, progress: Tell) -> Outcome:
        begun_s, last = time.monotonic(), ""

        def tell(text: str) -> None:
            nonlocal last
            # Called at each poll of a deployment, so ^C ends it soon.
            if self._stopping.is_set():
                raise Unavailable("the command was stopped: the server goes on with what it has begun")
            # Several models take turns, and each reports the same text until it makes progress.
            if text != last:
                last = text
                progress(f"{step.subject}: {text}")

        try:
            tell(step.does)
            text = self._do(step, tell)
        except ClipperError as error:
            return Outcome(step.subject, "failed", str(error), error)
        return Outcome(step.subject, "done", f"{text} ({time.monotonic() - begun_s:.1f} s)")

    def _do(self, step: Step, tell: Tell) -> str:
        match step:
            case Deploy():
                return self._deploy(step, tell)
            case MakeCurrent():
                self._clipper.rollback(step.model, step.version)
                return f"version {step.version} is current"
            case Scale():
                self._clipper.scale(step.model, step.replicas, step.version)
                now = self._clipper.version(step.model, step.version)
                if now.state != "sleeping":
                    timeout_s = MOST_START_TIMES * step.start_timeout_s + SETTLE_TIMEOUT_S
                    self._clipper.wait_until_ready(step.model, step.version, timeout_s, tell)
                return f"version {step.version} has {step.replicas} replicas"
            case CreateApplication():
                self._create(step.application)
                return "is created"
            case ChangeApplication():
                return self._change(step)
            case PutKey():
                key = step.key
                self._clipper.create_key(
                    key.name, applications=key.applications, key=key.key, replace=True, **key.limits
                )
                return "is valid"
            case Delete():
                self._delete(step)
                return "is deleted"
        raise AssertionError(f"{type(step).__name__} is not a step")

    def _deploy(self, step: Deploy, tell: Tell) -> str:
        version = step.version
        with packed_version(version, self._folder) as artifact:
            if artifact.digest != step.digest:
                raise Conflict(f"the model of {version.path} has changed since the plan was made: apply again")
            made = self._clipper.deploy(
                step.model,
                artifact,
                version=version.name,
                make_current=step.make_current,
                progress=tell,
                **version.settings,
            )
        warning = f"; {made.warning}" if made.warning else ""
        return f"version {made.version} is ready{warning}"

    def _create(self, wanted: WantedApplication) -> None:
        settings = {name: value for name, value in wanted.settings.items() if name != "code"}
        self._clipper.create_application(
            wanted.name,
            model=[link.target for link in wanted.links if not link.shadow],
            shadow=[link.target for link in wanted.links if link.shadow],
            cost={link.target: link.cost for link in wanted.links if link.cost is not None},
            code=self._sent_code(wanted),
            **settings,
        )

    def _change(self, step: ChangeApplication) -> str:
        wanted, settings = step.application, dict(step.settings)
        for call in step.links:
            if call.link is not None:
                link = call.link
                self._clipper.link(wanted.name, call.name, link.version, shadow=link.shadow, cost=link.cost)
        # In between: the new policy may name a new model, and the old policy a model that is unlinked.
        if settings:
            self._clipper.change_application(wanted.name, code=self._sent_code(wanted), **settings)
        for call in step.links:
            if call.link is None:
                self._clipper.unlink(wanted.name, call.name)
        return "is changed"

    def _sent_code(self, wanted: WantedApplication) -> str | None:
        with packed_code(wanted, self._folder) as code:
            if code is not None:
                self._clipper.upload(code)
            return None if code is None else code.digest

    def _delete(self, step: Delete) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "application": lambda: self._clipper.delete_application(step.name),
            "model": lambda: self._clipper.delete_model(step.name),
            "version": lambda: self._clipper.delete_model(step.name, step.version),
            "key": lambda: self._clipper.revoke_key(step.name),
        }
        calls[step.kind]()


def _side_by_side(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Group steps, in their order, into those that may be done at once: new applications that ask no others."""
    for is_apart, group in groupby(
        steps, lambda step: isinstance(step, CreateApplication) and not step.application.steps
    ):
        if is_apart:
            yield list(group)
        else:
            yield from ([step] for step in group)
