"""The news of tests that have ended; tests/supervisor/test_reports.py has it through the server."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.control.descriptions import Standing
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.events import EventFile, EventKeeper
from clipper.supervisor.history.story import Story
from clipper.supervisor.keepers.ended_tests import EndedTests
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.workers.workers import Workers


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventKeeper]:
    with closing(EventKeeper(EventFile(tmp_path / "events.jsonl"))) as events:
        yield events


@pytest.fixture
def tests(tmp_path: Path, story: Story, events: EventKeeper) -> Iterator[EndedTests]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        yield EndedTests(Catalog(registry), Workers.__new__(Workers), story, events)


def standing(winner: str | None, application: str = "digits") -> tuple[str, Standing]:
    return application, Standing(winner, 0.95, 0.01, 3400.0)


def test_an_end_is_told_once_with_the_winner_and_how_sure_it_is(tests: EndedTests, story: Story) -> None:
    tests.take([standing(None), standing(None)])
    assert story.steps == ()
    tests.take([standing(None), standing("forest")])
    tests.take([standing("forest"), standing("forest")])
    (event,) = story.steps
    assert event.subject == "digits"
    assert event.text == (
        "its test has ended: forest is the best model, or within 0.01 of it in mean loss, "
        "with a confidence of 0.95, by 3400 pieces of feedback"
    )


def test_a_test_that_was_opened_again_ends_again(tests: EndedTests, story: Story, events: EventKeeper) -> None:
    tests.take([standing("forest"), standing("svm", "other")])
    tests.take([standing(None), standing("svm", "other")])
    tests.take([standing("forest"), standing("svm", "other")])
    tests.take([standing("net"), standing("svm", "other")])
    assert [event.subject for event in story.steps] == ["digits", "other", "digits", "digits"]
    kept = events.log.latest()
    assert [one.subject for one in kept] == [f"application {step.subject}" for step in story.steps]
    assert {one.kind for one in kept} == {"test"} and kept[-1].message == story.steps[-1].text
    assert "net is the best model" in story.steps[-1].text


def test_an_event_that_an_earlier_supervisor_told_is_not_told_again(
    tmp_path: Path, tests: EndedTests, events: EventKeeper
) -> None:
    tests.take([standing("forest")])
    with (
        closing(EventKeeper(EventFile(tmp_path / "events.jsonl"))) as later,
        closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry,
    ):
        again = EndedTests(Catalog(registry), Workers.__new__(Workers), Story(), later)
        again.take([standing("forest")])
        assert later.log.latest() == events.log.latest()
        again.take([standing(None)])
        again.take([standing("forest")])
        assert len(later.log.latest()) == 2
