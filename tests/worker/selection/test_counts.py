"""The counters of one application, as they are read."""

import msgspec

from clipper.worker.selection.counts import MAX_EXPLANATION, ApplicationCounts


def test_a_reading_can_be_sent_whatever_an_explanation_says() -> None:
    """One that could not would take the readings of all applications with it."""
    counts = ApplicationCounts()
    counts.explanations = {"policy_error": "half of a pair: \ud800", "model_error": "x" * 1000}
    told = counts.told_explanations()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told))
    assert told == {"policy_error": "half of a pair: \\ud800", "model_error": "x" * MAX_EXPLANATION}
