"""The type of what each command prints with --json."""

from typing import Any, TypedDict

from clipper.api.events import Events
from clipper.api.events import Step as HistoryEntry
from clipper.api.reports import Report
from clipper.api.schemas import (
    Application,
    Contexts,
    CreatedKey,
    CreatedToken,
    Key,
    LearnedPolicy,
    Logs,
    Model,
    Replica,
    Status,
    Token,
    Version,
)
from clipper.cli.load.report import Report as LoadReport
from clipper.client import Observed, Prediction
from clipper.supervisor.backup import Backup


class Deleted(TypedDict):
    deleted: str


class Revoked(TypedDict):
    revoked: str


class Set(TypedDict):
    set: str


class Link(TypedDict):
    url: str


class Planned(TypedDict):
    subject: str
    does: str
    changes: list[str]


class Obstacle(TypedDict):
    subject: str
    reason: str


class Outcome(TypedDict):
    subject: str
    status: str
    text: str


class Applied(TypedDict):
    plan: list[Planned]
    obstacles: list[Obstacle]
    unnamed: list[str]
    outcomes: list[Outcome]


JSON_OUTPUTS: dict[str, Any] = {
    "deploy": Version,
    "model list": list[Model],
    "model show": Model,
    "model scale": Version,
    "model redeploy": Version,
    "model rollback": Model,
    "model delete": Deleted,
    "replica list": list[Replica],
    "replica show": Replica,
    "app create": Application,
    "app list": list[Application],
    "app show": Application,
    "app update": Application,
    "app policy": LearnedPolicy,
    "app report": Report,
    "app contexts list": Contexts,
    "app contexts delete": Deleted,
    "app link": Application,
    "app unlink": Application,
    "app delete": Deleted,
    "predict": Prediction,
    "observe": Observed,
    "load": LoadReport,
    "status": Status,
    "status --history": list[HistoryEntry],
    "events": Events,
    "logs": Logs,
    "dashboard": Link,
    "key create": CreatedKey,
    "key list": list[Key],
    "key revoke": Revoked,
    "token create": CreatedToken,
    "token list": list[Token],
    "token revoke": Revoked,
    "secret set": Set,
    "secret list": dict[str, str],
    "secret delete": Deleted,
    "apply": Applied,
    "export": dict[str, Any],
    "backup": Backup,
}
