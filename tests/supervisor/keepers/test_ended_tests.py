"""What is told of tests that have ended; tests/supervisor/test_reports.py has it through the server."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.control.statistics import StandingStatistics
from clipper.registry.sqlite import SqliteRegistry
from clipper.rollout.story import Story
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.ended_tests import EndedTests
from clipper.supervisor.workers.workers import Workers


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def tests(tmp_path: Path, story: Story) -> Iterator[EndedTests]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        yield EndedTests(Catalog(registry), Workers.__new__(Workers), story)


def standing(winner: str | None, application: str = "digits") -> tuple[str, StandingStatistics]:
    return application, StandingStatistics(winner, 0.95, 0.01, 3400.0)


def test_an_end_is_told_once_with_the_winner_and_how_sure_it_is(tests: EndedTests, story: Story) -> None:
    tests.take([standing(None), standing(None)])
    assert story.events == ()
    tests.take([standing(None), standing("forest")])
    tests.take([standing("forest"), standing("forest")])
    (event,) = story.events
    assert event.subject == "digits"
    assert event.text == (
        "its test has ended: forest is the best model, or within 0.01 of it in mean loss, "
        "with a confidence of 0.95, by 3400 pieces of feedback"
    )


def test_a_test_that_was_opened_again_ends_again(tests: EndedTests, story: Story) -> None:
    tests.take([standing("forest"), standing("svm", "other")])
    tests.take([standing(None), standing("svm", "other")])
    tests.take([standing("forest"), standing("svm", "other")])
    tests.take([standing("net"), standing("svm", "other")])
    assert [event.subject for event in story.events] == ["digits", "other", "digits", "digits"]
    assert "net is the best model" in story.events[-1].text
