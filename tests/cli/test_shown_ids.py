"""Whatever a command shows as the name of a thing is taken by the commands that ask for such a thing."""

import pytest

from clipper.supervisor.history.event_log import NewEvent
from clipper.values.types import Caller
from tests.cli.in_process import Result, Run, usage_error
from tests.conftest import Api


@pytest.fixture
def two_versions(run: Run, model: str) -> Run:
    for _ in range(2):
        assert run("deploy", "m", model, "--input-type", "float64[*]").status == 0
    assert run("app", "create", "app", "--model", "m").status == 0
    return run


def column(listed: Result, title: str) -> list[str]:
    """The cells of a table under this title; they may have blanks in them."""
    head, *rows = listed.out.splitlines()
    begin = head.index(title)
    end = next((at for at in range(begin, len(head)) if head[at : at + 2] == "  "), len(head))
    while end < len(head) and head[end] == " ":
        end += 1
    return [row[begin : end if end < len(head) else None].strip() for row in rows]


@pytest.mark.parametrize("command", ["replica show", "logs"])
def test_replicas(two_versions: Run, command: str) -> None:
    ids = column(two_versions("replica", "list"), "id")
    assert ids and all("m:" in one for one in ids)
    assert [two_versions(*command.split(), one).status for one in ids] == [0] * len(ids)


@pytest.mark.parametrize(
    "command",
    [
        "model show m:1",
        "model scale m:1 2",
        "model redeploy m:2",
        "model rollback m:1",
        "model delete m:1",
        "logs m:1",
        "app create other --model m:1",
        "app create other --shadow m:1",
        "app link app m:1",
    ],
)
def test_versions(two_versions: Run, command: str) -> None:
    done = two_versions(*command.split())
    assert (done.status, done.err) == (0, "")


def test_only_the_current_version_is_deployed_again(two_versions: Run) -> None:
    assert "version 1 is not current, 2 is: clipper model rollback m first" in usage_error(
        two_versions, "model redeploy m:1"
    )


def test_contexts_that_a_terminal_would_obey(two_versions: Run, api: Api) -> None:
    api.operations.contexts = ["\x1b[2J", '"quoted"', "7", "a b"]
    for shown in column(two_versions("app", "contexts", "list", "app"), "context"):
        assert two_versions("app", "contexts", "delete", "app", shown).status == 0
    assert api.operations.contexts == []


def test_events(two_versions: Run, api: Api) -> None:
    api.operations.events_log.add(NewEvent("rollback", "model m", "it is rolled back", by=Caller("ci")), 1.0, 1.0)
    shown = two_versions("events")
    for option in ("kind", "subject", "who"):
        (value,) = column(shown, option)
        assert column(two_versions("events", f"--{option}", value), "subject") == ["model m"]


@pytest.mark.parametrize("kind", ["token", "key"])
def test_tokens_and_keys(run: Run, kind: str) -> None:
    assert run(kind, "create", "web").status == 0
    (name,) = column(run(kind, "list"), "name")
    assert run(kind, "revoke", name).status == 0
