"""The losses of a log's decisions: those that were learned, and those of feedback that came too late for that."""

from typing import Any

import pytest

from clipper.learning.decisions.evaluation.samples import samples_of
from clipper.learning.decisions.joining import Joined
from tests.learning.decisions.log_files import SETTING, decision, judgement

LABELLED = b'{"label":"a","scores":[0.9,0.1]}'


@pytest.mark.parametrize(
    ("output", "label", "fields", "loss"),
    [
        (b'"a"', b'"a"', {}, 0.0),
        (LABELLED, b'"a"', {}, 0.0),
        (LABELLED, b'"b"', {}, 1.0),
        (LABELLED, LABELLED, {}, 0.0),
        (b'{"sum":3,"parts":[1,2]}', b"3", {}, 0.0),
        (b'{"kind":"a","name":"b"}', b'"b"', {"label_field": "name"}, 0.0),
        (b'{"kind":"a","name":"b"}', b'"a"', {"label_field": "name"}, 1.0),
        (b'{"sum":3,"label":9}', b"4", {"loss": "absolute", "label_field": "sum"}, 1.0),
        (b'{"label":"a","probabilities":{"a":1,"b":0}}', b'"a"', {"loss": "log"}, 0.0),
    ],
)
def test_late_feedback_is_compared_with_the_judged_value(
    output: bytes, label: bytes, fields: dict[str, Any], loss: float
) -> None:
    """It was compared with all of the output, which no label equals."""
    given = {"losses": None, "answer_loss": None, "loss": "zero_one", "loss_parameters": {}} | fields
    found = samples_of([Joined(SETTING, decision(1, outputs=(output,)), judgement(1, label=label, **given), 1)])
    assert [sample.loss for sample in found.taken] == [pytest.approx(loss)]
