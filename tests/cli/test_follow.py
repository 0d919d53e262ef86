"""An address that is followed: each change is deployed once, and nothing that a store does ends the following."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from clipper.api.schemas import Version
from clipper.cli.commands.follow import MOST_LOOKS, Follower
from clipper.errors import ContainerFailed, InvalidArgument, TooLarge, Unavailable
from tests.cli.in_process import Run, usage_error


def version(number: int, source: str) -> Version:
    fields: dict[str, Any] = {"model": "m", "version": str(number), "source": source}
    blank = {"state": "ready", "current": True, "input_type": None, "runtime": "", "cache": True, "created_at": 1.0}
    batching = {"policy": "goodput", "delay_ms": 0.0, "max_batch": 1}
    return msgspec.convert({**blank, **fields, "batching": batching, "replicas_wanted": 1, "replicas": ()}, Version)


class Store:
    """A store and a server for a follower: revisions or errors of its looks, and failures of its deployments."""

    def __init__(self, looks: list[str | Exception], failures: list[Exception | None] | None = None) -> None:
        self.looks, self.failures = looks, failures or []
        self.seen = ""
        self.deployed: list[str] = []
        self.said: list[str] = []

    def look(self) -> str:
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        self.seen = found
        return found

    def deploy(self, last: Version | None) -> Version:
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        if last is not None and last.source == self.seen:
            return last
        self.deployed.append(self.seen)
        return version(len(self.deployed), self.seen)


def followed(store: Store, last: Version | None = None) -> Iterator[Version | None]:
    follower = Follower(store.look, store.deploy, store.said.append, last)
    while store.looks:
        yield follower.step()


def test_each_change_is_deployed_once_and_told_with_what_was_before() -> None:
    store = Store(["a", "a", "b", "b", "a"])
    assert [one and one.source for one in followed(store)] == ["a", None, "b", None, "a"]
    assert store.deployed == ["a", "b", "a"]
    assert store.said[1] == "m:2 is deployed from b after a (version 1)"


def test_what_was_deployed_before_the_command_began_is_not_deployed_again() -> None:
    store = Store(["a", "a", "b"])
    assert [one and one.source for one in followed(store, version(7, "a"))] == [None, None, "b"]


def test_a_store_that_is_down_is_asked_again_and_told_of_once() -> None:
    down = Unavailable("nothing answers")
    store = Store(["a", down, down, "b", down], [None, Unavailable("broke off"), None])
    store.looks.insert(4, "b")
    list(followed(store))
    assert store.deployed == ["a", "b"]
    told = [text for text in store.said if "stays" in text]
    assert told == [
        "the deployed version stays: nothing answers",
        "the deployed version stays: broke off",
        "the deployed version stays: nothing answers",
    ]


def test_content_that_cannot_be_deployed_is_tried_once() -> None:
    store = Store(["a", "bad", "bad", "bad", "c"], [None, ContainerFailed("no module named 'left_pad'"), None])
    list(followed(store))
    assert store.deployed == ["a", "c"]


def test_an_address_that_cannot_be_followed_ends_the_command() -> None:
    with pytest.raises(InvalidArgument, match="does not change"):
        list(followed(Store([InvalidArgument("it does not change")])))


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("it is no model"),
        ValueError("bad magic"),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    ],
)
def test_content_that_is_no_model_does_not_end_what_has_begun(error: Exception) -> None:
    store = Store(["a", "bad", "bad", "c"], [None, error, None])
    list(followed(store))
    assert store.deployed == ["a", "c"]
    assert len([text for text in store.said if "stays" in text]) == 1


def test_an_address_whose_store_tells_no_changes_is_looked_at_again() -> None:
    store = Store(["a", InvalidArgument("tells no ETag"), "b"])
    list(followed(store))
    assert store.deployed == ["a", "b"] and "the deployed version stays: tells no ETag" in store.said


def test_what_cannot_be_deployed_from_the_first_ends_the_command() -> None:
    with pytest.raises(InvalidArgument, match="no model"):
        list(followed(Store(["a"], [InvalidArgument("it is no model")])))


def test_a_full_disk_is_tried_again() -> None:
    store = Store(["a", "b", "b", "b"], [None, OSError(28, "No space left on device"), None])
    list(followed(store))
    assert store.deployed == ["a", "b"]


@pytest.mark.parametrize("lie", ["always new", "too large"])
def test_a_store_that_lies_is_fetched_from_ever_less_often(lie: str) -> None:
    """Each attempt may fetch ten gigabytes."""
    content, attempts = "a", 0
    looks: list[str | Exception] = [f"etag {number}" if lie == "always new" else "etag" for number in range(200)]
    store = Store(looks)

    def deploy(last: Version | None) -> Version:
        nonlocal attempts
        attempts += 1
        if lie == "too large":
            raise TooLarge("it has 10 GB")
        return version(1, content) if last is None or last.source != content else last

    follower = Follower(store.look, deploy, store.said.append)
    while len(store.looks) > 20:
        follower.step()
    assert 10 <= attempts <= 180 / MOST_LOOKS + 5
    # New content of a store that lies no more is deployed within the 20 looks that are left.
    content, lie = "b", ""
    while store.looks and (follower.last is None or follower.last.source != "b"):
        store.looks[0] = f"true {len(store.looks)}"
        follower.step()
    assert follower.last is not None and follower.last.source == "b"


def test_usage(run: Run) -> None:
    assert "--follow needs the address of a model" in usage_error(run, "deploy m --image x --follow")
    fixed = run("deploy", "m", "runs:/1/model", "--follow")
    assert fixed.status == 1 and ("does not change" in fixed.err or "needs an extra" in fixed.err)
    local = run("deploy", "m", "./model.joblib", "--follow")
    assert local.status == 1 and "no address of a store" in local.err
