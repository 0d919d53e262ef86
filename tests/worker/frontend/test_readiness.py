"""Whether a server should be sent queries, by its applications and by whether it is stopping."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from clipper.errors import InvalidArgument, NotFound
from clipper.worker.frontend.readiness import MAX_NAMED, Readiness, named
from clipper.worker.selection.application import Application


def application(name: str = "app", **replicas: bool) -> Application:
    """An application over versions, each with one replica that is linked or not."""
    versions = {version: {f"m:{version}#1": is_linked} for version, is_linked in replicas.items()}
    terms = SimpleNamespace(versions=lambda: versions)
    return cast(Any, SimpleNamespace(name=name, terms=terms, is_ready=any(replicas.values())))


@pytest.mark.parametrize(
    ("applications", "with_any", "with_all"),
    [
        ([], True, True),
        ([application(v1=True)], True, True),
        ([application(v1=False, v2=True)], True, True),
        ([application(v1=False)], False, False),
        ([application()], False, False),
        ([application(v1=False), application(v1=False)], False, False),
        # One application that cannot answer takes no others from their users, unless all have to.
        ([application(v1=True), application(v1=False)], True, False),
    ],
)
def test_a_server_is_ready_for_some_or_all_applications_until_it_stops(
    applications: list[Application], with_any: bool, with_all: bool
) -> None:
    for needs_all, expected in ((False, with_any), (True, with_all)):
        readiness = Readiness(applications, needs_all)
        assert readiness.is_ready == expected
        assert (readiness.why_not() is None) == expected
        readiness.is_stopping = True
        assert not readiness.is_ready and "stopping" in str(readiness.why_not())


def test_one_application_is_asked_for_by_name() -> None:
    readiness = Readiness([application("a", v1=True), application("b", v1=False), application("c")])
    assert readiness.why_not(["a"]) is None
    assert readiness.why_not(["b"]) == "not ready: applications without a model that has a replica: b"
    assert str(readiness.why_not(["c", "a", "b"])).endswith(": c, b")
    with pytest.raises(NotFound, match="'d'"):
        readiness.why_not(["a", "d"])
    readiness.is_stopping = True
    assert "stopping" in str(readiness.why_not(["a"]))


@pytest.mark.parametrize(
    ("url", "names"),
    [
        (b"/health/ready", ()),
        (b"/health/ready?", ()),
        (b"/health/ready?now=1&x", ()),
        (b"/health/ready?application=a", ("a",)),
        (b"/health/ready?application=a&now=1&application=b%2Dc", ("a", "b-c")),
        (b"http://host/health/ready?application=a", ("a",)),
    ],
)
def test_which_applications_a_request_names(url: bytes, names: tuple[str, ...]) -> None:
    assert named(url) == names


@pytest.mark.parametrize(
    "query", [b"application=", b"application", b"&".join([b"application=a"] * (MAX_NAMED + 1)), b"application=\xff"]
)
def test_a_request_that_names_nothing_is_refused(query: bytes) -> None:
    with pytest.raises(InvalidArgument, match="application=NAME"):
        named(b"/health/ready?" + query)


def test_one_model() -> None:
    own = application(v1=False, v2=True)
    readiness = Readiness([own])
    assert [readiness.of_model(own, version) for version in ("v1", "v2", None)] == [False, True, True]
    readiness.is_stopping = True
    assert [readiness.of_model(own, version) for version in ("v1", "v2", None)] == [False, False, False]


def test_it_follows_the_applications_and_names_none_of_them() -> None:
    served = {"secret": application(v1=False)}
    readiness = Readiness(served.values())
    assert "applications without a model that has a replica: 1" in str(readiness.why_not())
    assert "secret" not in str(readiness.why_not())
    del served["secret"]
    assert readiness.is_ready
