"""docs/events-and-series.md against the kinds, series and bounds that it names."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipper.api.events import DEFAULT_EVENTS, Kind
from clipper.api.series import MAX_SERIES_S
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    LATENCY_BOUNDS_S,
    ApplicationStatistics,
    HistogramData,
    ModelSelectionStatistics,
    SelectionStatistics,
    VersionStatistics,
)
from clipper.supervisor.history.event_log import BURST, MAX_EVENTS, MAX_MESSAGE, WINDOW_S
from clipper.supervisor.history.ring import IDLE_STEPS
from clipper.supervisor.history.sampler import MAX_FOLLOWED, MAX_MISSED, MAX_SERIES, PER_STEP, POINTS, STEP_S
from clipper.supervisor.history.values import (
    OF_APPLICATIONS,
    OF_MODELS,
    OF_OVERVIEW,
    application_values,
    version_values,
)

PAGE = (Path(__file__).parents[2] / "docs" / "events-and-series.md").read_text()


def first_cells(head: str) -> set[str]:
    """The code in the first cells of the table of that head."""
    rows = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()
    return {code for row in rows if row.startswith("|") for code in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_kind_of_event_has_its_row() -> None:
    assert first_cells("| kind | subject | when |") == set(get_args(Kind))


def test_every_series_has_its_row() -> None:
    confidence = HistogramData((1,) * (len(CONFIDENCE_BOUNDS) + 1), 1.0)
    models = {"m": ModelSelectionStatistics(1, 0, 1, 0.5, cost=1.0)}
    selection = SelectionStatistics(models, confidence, {"joined": 1}, 1, 0.5, 0, 0, None)
    latency = HistogramData((1,) * (len(LATENCY_BOUNDS_S) + 1), 1.0)
    counted = ApplicationStatistics("app", 1, {"timeout": 1}, {"failed": 1}, 1, latency, selection)
    ends = {"timeout": "REASON", "failed": "REASON", "m": "MODEL"}
    found = {"slo_ms", "regret"}
    for name in application_values(counted, 2.0):
        series, _, end = name.partition(".")
        found.add(name if not end else f"{series}.{ends.get(end, 'BOUND')}")
    assert first_cells("| series of an application | |") == found >= set(OF_APPLICATIONS)
    of_version = version_values(VersionStatistics("m", "1", *(1,) * 9, latency, latency, latency), 2.0, 1)
    assert first_cells("| series of a model | |") == {*of_version, "replicas_ready", "replicas_wanted"}
    assert set(OF_MODELS) <= {*of_version, "replicas_ready", "replicas_wanted"}
    for names in OF_OVERVIEW.values():
        assert ", ".join(f"`{name}`" for name in names) in PAGE or " and ".join(f"`{name}`" for name in names) in PAGE


@pytest.mark.parametrize(
    "text",
    [
        f"The latest {MAX_EVENTS:,} events",
        f"{MAX_MESSAGE} characters at most",
        f"more than {BURST} events of one kind within {'ten' if WINDOW_S == 600 else '?'} minutes",
        f"limit={DEFAULT_EVENTS}",
        f"room for {MAX_SERIES:,} of them ({MAX_SERIES * POINTS * 4 / 1e6:.0f} MB",
        f"takes {POINTS * 4 / 1000:.1f} kB",
        f"more than {PER_STEP} applications or models",
        f"a value every {STEP_S * -(-MAX_FOLLOWED // PER_STEP):.0f} s",
        f"Only the first {MAX_FOLLOWED:,} of each kind",
        f"`seconds` is from {STEP_S:.0f} to {MAX_SERIES_S}",
        "idle for longest, if that is ten minutes or more" if IDLE_STEPS * STEP_S == 600 else "?",
        "after three steps the series go on" if MAX_MISSED == 2 else "?",
    ],
)
def test_bounds_are_those_of_the_code(text: str) -> None:
    assert text in PAGE.replace("\n", " ")
