"""Whether a server should be sent queries, by its applications and by whether it is stopping."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from clipper.frontend.readiness import Readiness
from clipper.selection.application import Application


def application(**replicas: bool) -> Application:
    """An application over versions, each with one replica that is linked or not."""
    versions = {version: {f"m:{version}#1": is_linked} for version, is_linked in replicas.items()}
    terms = SimpleNamespace(is_ready=any(replicas.values()), versions=lambda: versions)
    return cast(Any, SimpleNamespace(terms=terms))


@pytest.mark.parametrize(
    ("applications", "is_ready"),
    [
        ([], True),
        ([application(v1=True)], True),
        ([application(v1=False, v2=True)], True),
        ([application(v1=False)], False),
        ([application()], False),
        ([application(v1=True), application(v1=False)], False),
    ],
)
def test_every_application_needs_a_model_and_a_server_that_stops_needs_no_queries(
    applications: list[Application], is_ready: bool
) -> None:
    readiness = Readiness(applications)
    assert readiness.is_ready == is_ready
    assert (readiness.why_not is None) == is_ready
    readiness.is_stopping = True
    assert not readiness.is_ready and "stopping" in str(readiness.why_not)


def test_one_model() -> None:
    own = application(v1=False, v2=True)
    readiness = Readiness([own])
    assert [readiness.of_model(own, version) for version in ("v1", "v2", None)] == [False, True, True]
    readiness.is_stopping = True
    assert [readiness.of_model(own, version) for version in ("v1", "v2", None)] == [False, False, False]


def test_it_follows_the_applications_and_names_none_of_them() -> None:
    served = {"secret": application(v1=False)}
    readiness = Readiness(served.values())
    assert "applications without a model that has a replica: 1" in str(readiness.why_not)
    assert "secret" not in str(readiness.why_not)
    del served["secret"]
    assert readiness.is_ready
