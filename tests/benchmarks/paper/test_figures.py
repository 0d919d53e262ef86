"""What the figures make of their numbers."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import (
    batching_gain,
    decoupling,
    delayed_batching,
    ensembles,
    failure,
    latency_profiles,
    networks,
    personalization,
    simulated_failure,
    stragglers,
)
from benchmarks.paper.arrivals import Reply
from benchmarks.paper.bench import encode_inputs
from benchmarks.paper.data import repetitions
from benchmarks.paper.figure import Figure
from benchmarks.paper.figures import FIGURES

SIZES = (1, 2, 3, 64, 512)
PROFILES = {
    name: [{"rows": size, "p50_ms": 1 + row_ms * size, "p99_ms": 2 + row_ms * size} for size in SIZES]
    for name, row_ms in (("linear-svm", 0.02), ("kernel-svm", 6.0))
}
LATENCY_PROFILES = {"within_ms": 20, "profiles": PROFILES, "served": PROFILES}
AGREEMENT = [
    {"agreeing": 4, "confident_error": 0.08, "unsure_error": 0.5, "unsure_share": 0.1},
    {"agreeing": 5, "confident_error": 0.05, "unsure_error": 0.4, "unsure_share": 0.2},
]
ENSEMBLES = {
    "queries": 10_000,
    "model_errors": {"svm": 0.13, "net": 0.14},
    "ensemble_error": 0.12,
    "agreement": AGREEMENT,
}
FAILURE = {
    "queries": 20_000,
    "sampled_every": 100,
    "errors": {"exp3": 3000, "exp4": 2900, **dict.fromkeys(failure.MODELS, 3800)},
    "share_of_broken": {name: [0.9] * 50 + [0.5, 0.3, 0.1] + [0.0] * 57 + [0.8] * 90 for name in failure.POLICIES},
    "cumulative_errors": {name: list(range(201)) for name in ("exp3", "exp4", *failure.MODELS)},
    "simulated": {
        "seeds": 40,
        "errors": {
            name: {"mean": mean, "half_interval": 20.0}
            for name, mean in (("exp3", 3100), ("exp4", 2700), ("paper_exp3", 3200), ("paper_exp4", 3000))
        },
    },
}
BATCHING_GAIN = {
    "slo_ms": 20,
    "connections": 256,
    "models": {
        name: {
            rule: {"outputs_per_s": per_s, "p50_ms": 5.0, "p99_ms": 19.0, "default_share": 0.0, "mean_batch": 9.0}
            for rule, per_s in (("none", 100.0), ("aimd", 2500.0), ("quantile", 2400.0), ("goodput", 2600.0))
        }
        for name in ("linear-svm", "random-forest")
    },
}
DELAYED_BATCHING = {
    "slo_ms": 20,
    "delays_ms": delayed_batching.DELAYS_MS,
    "models": {
        name: {
            rule: [{"outputs_per_s": per_s, "p50_ms": 5.0, "p99_ms": 19.0, "mean_batch": 9.0} for per_s in rates]
            for rule, rates in (("aimd", (5000.0, 9000.0, 10000.0, 9000.0)), ("goodput", (11000.0,) * 4))
        }
        for name in delayed_batching.MODELS
    },
}
STRAGGLERS = {
    "slo_ms": 20,
    "sizes": [
        {
            "size": size,
            "mitigated": {
                "mean_ms": 5.0,
                "p99_ms": 20.0,
                "missing_share": 0.1,
                "accuracy": accuracy,
                "default_share": 0,
            },
            "blocking": {"mean_ms": 9.0, "p99_ms": 90.0, "accuracy": accuracy},
        }
        for size, accuracy in ((1, 0.75), (16, 0.85))
    ],
}
REPLICAS = {
    "counts": [
        {
            "replicas": count,
            "outputs_per_s": 970.0 * count,
            "default_share": 0.0,
            "mean_ms": 66.0,
            "p99_ms": 70.0 + count,
        }
        for count in (1, 2, 3, 4)
    ],
}
PERSONALIZATION = {
    "users": 300,
    "error_after": [0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.05, 0.03],
    "own_error": 0.01,
    "pooled_error": 0.4,
}
FEEDBACK_CACHE = {
    "ratio": 1.7,
    "connections": 32,
    "observations_per_s": {"cached": [1700.0, 1701.0, 1702.0], "uncached": [999.0, 1000.0, 1001.0]},
}

DECOUPLING = {
    "connections": decoupling.CONNECTIONS,
    "models": {
        name: {
            server: {
                kind: {"requests_per_s": per_s, "p50_ms": 1.0, "p99_ms": 5.0, "failed": 0}
                for kind in decoupling.CONNECTIONS
            }
            for server, per_s in (("clipper", 3000.0), ("in_process", 2000.0), ("batching", 2500.0))
        }
        for name in ("linear-svm", "kernel-svm")
    },
}

# By figure: numbers that show all that it must.
NUMBERS: dict[str, Mapping[str, Any]] = {
    "latency_profiles": LATENCY_PROFILES,
    "batching_gain": BATCHING_GAIN,
    "delayed_batching": DELAYED_BATCHING,
    "replicas": REPLICAS,
    "ensembles": ENSEMBLES,
    "failure": FAILURE,
    "stragglers": STRAGGLERS,
    "personalization": PERSONALIZATION,
    "feedback_cache": FEEDBACK_CACHE,
    "decoupling": DECOUPLING,
}
BY_NAME = {figure.name: figure for figure in FIGURES}


def changed(numbers: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy in which what ``path`` names, by keys and positions, is ``value``."""
    copy: Any = deepcopy(dict(numbers))
    at = copy
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in keys:
        at = at[key]
    at[last] = value
    return copy


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_figure_that_shows_all_it_must(figure: Figure) -> None:
    verdict = figure.judge(NUMBERS[figure.name])
    assert verdict.passed
    assert "\n" not in verdict.text


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("latency_profiles", "profiles/linear-svm/2/p99_ms", 20.1),
        ("latency_profiles", "profiles/linear-svm/1/p50_ms", 19.0),
        ("ensembles", "ensemble_error", 0.13),
        ("ensembles", "agreement/0/confident_error", 0.11),
        ("ensembles", "agreement/1/unsure_error", 0.15),
        ("failure", "errors/exp3", 3800),
        ("failure", "errors/third", 2000),
        ("failure", "simulated/errors/exp3/mean", 3201),
        ("failure", "simulated/errors/exp4/mean", 3001),
        ("batching_gain", "models/random-forest/none/outputs_per_s", 131.0),
        ("batching_gain", "models/linear-svm/quantile/outputs_per_s", 2900.0),
        ("delayed_batching", "models/fixed-cost/goodput/0/outputs_per_s", 8900.0),
        ("failure", "share_of_broken/exp4", [0.9] * 200),
        ("failure", "share_of_broken/exp3", [0.9] * 50 + [0.0] * 150),
        ("stragglers", "sizes/1/mitigated/p99_ms", 23.1),
        ("stragglers", "sizes/0/mitigated/mean_ms", 19.0),
        ("stragglers", "sizes/1/mitigated/default_share", 0.02),
        ("stragglers", "sizes/1/mitigated/accuracy", 0.7),
        ("replicas", "counts/3/outputs_per_s", 970.0 * 3.79),
        ("replicas", "counts/1/outputs_per_s", 970.0 * 1.79),
        ("replicas", "counts/3/p99_ms", 90.0),
        ("replicas", "counts/2/default_share", 0.02),
        ("personalization", "error_after/8", 0.3),
        ("personalization", "error_after/4", 0.22),
        ("personalization", "error_after/0", 0.15),
        ("feedback_cache", "ratio", 1.59),
        ("decoupling", "models/kernel-svm/clipper/together/requests_per_s", 1800.0),
        ("decoupling", "models/kernel-svm/batching/together/requests_per_s", 3400.0),
        ("decoupling", "models/linear-svm/clipper/alone/p50_ms", 2.1),
        ("decoupling", "models/linear-svm/clipper/alone/failed", 1),
    ],
)
def test_figure_that_does_not(name: str, path: str, value: object) -> None:
    assert not BY_NAME[name].judge(changed(NUMBERS[name], path, value)).passed


def test_inputs_are_json_without_needless_digits() -> None:
    assert encode_inputs(np.array([[0.0, 255.0], [-3.639, 0.5]])) == [b"[0,255]", b"[-3.639,0.5]"]


def test_repetitions_count_within_speaker_and_label() -> None:
    speakers, labels = np.array([0, 0, 0, 1, 0]), np.array([4, 4, 5, 4, 4])
    assert repetitions(speakers, labels).tolist() == [0, 1, 0, 0, 2]


def test_largest_batch_lies_between_the_sizes_that_were_measured() -> None:
    rows = [{"rows": 1, "p99_ms": 5.0}, {"rows": 2, "p99_ms": 6.0}, {"rows": 4, "p99_ms": 8.0}]
    assert [latency_profiles.largest_within(rows, within_ms) for within_ms in (4.9, 5.9, 6.9, 7.0, 8.0, 9.0)] == [
        0,
        1,
        2,
        3,
        4,
        4,
    ]


def test_line_through_latencies_up_to_a_time() -> None:
    straight = [{"rows": size, "p50_ms": 3 + 0.5 * size} for size in (1, 2, 4, 8)]
    bent = [*straight, {"rows": 16, "p50_ms": 30}]
    assert latency_profiles.linearity(bent, within_ms=20) == pytest.approx(1)
    assert latency_profiles.linearity(bent, within_ms=30) < 0.95
    assert latency_profiles.linearity(bent, within_ms=4) == 1


def test_split_by_agreement() -> None:
    errors = np.array([False, False, True, True, False])
    confidence = np.array([1.0, 0.8, 0.8, 0.6, 0.2 * 3])
    assert ensembles.split(errors, confidence, 4) == {
        "agreeing": 4,
        "confident_error": pytest.approx(1 / 3),
        "unsure_error": 0.5,
        "unsure_share": pytest.approx(0.4),
    }
    assert ensembles.split(errors, np.ones(5), 5)["unsure_error"] is None


def test_cumulative_errors_are_sampled_from_zero_on() -> None:
    assert failure.cumulative(np.array([1, 0, 1, 1, 0]), 2) == [0, 1, 3]


def test_queries_until_counts_from_the_change() -> None:
    shares = [0.9, 0.1, 0.9, 0.5, 0.1, 0.8]
    assert failure.queries_until(shares, 200, 100, reached=False, bound=0.2) == 200
    assert failure.queries_until(shares, 300, 100, reached=True, bound=0.7) == 200
    assert failure.queries_until(shares, 300, 100, reached=True, bound=0.8) is None


def test_users_are_never_asked_about_what_they_or_the_crowd_told() -> None:
    users = personalization.make_users(15, [33] * 15, np.random.default_rng(0))
    assert len(users) == len({user.context for user in users}) == 15 * personalization.TRIALS
    for user in users:
        told = {*range(personalization.CROWD_FRAMES), *user.feedback}
        assert told.isdisjoint(user.asked)
        assert told | set(user.asked) == set(range(33))
        assert len(user.feedback) == personalization.FEEDBACKS


def test_error_is_the_share_of_wrong_outputs() -> None:
    assert personalization.error([1, 2, 3, 4], [1, 2, 4, 3]) == 0.5


def test_replies_as_numbers() -> None:
    replies = [Reply({"output": number % 2, "default": number == 0}, number / 1e3) for number in range(1, 101)]
    described = stragglers.describe(replies, np.zeros(100, np.int64))
    assert described == {
        "queries": 100,
        "mean_ms": 50.5,
        "p50_ms": 50.5,
        "p99_ms": 99.01,
        "accuracy": 0.5,
        "default_share": 0.0,
    }


def test_gain_of_batches_is_over_one_query_at_a_time() -> None:
    assert batching_gain.gain(BATCHING_GAIN["models"]["linear-svm"]) == 26.0  # type: ignore[index]


def test_the_papers_policies_leave_a_model_that_fails_and_ours_are_played_on_the_same_answers() -> None:
    """Five made-up models that err apart from each other, and few queries."""
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 10, 20_000)
    means = np.array([0.09, 0.17, 0.24, 0.35, 0.46])
    wrong = (labels[:, None] + chance.integers(1, 10, (20_000, 5))) % 10
    given = np.where(chance.random((20_000, 5)) < means, wrong, labels[:, None])
    found = simulated_failure.simulate(networks.Outputs(labels, given), seeds=3)
    errors = {name: each["mean"] for name, each in found["errors"].items()}
    # Of a quarter noise the best errs 0.9.
    assert found["network_errors"][0] == pytest.approx(15_000 * 0.09 + 5_000 * 0.9, rel=0.05)
    assert all(mean < min(found["network_errors"]) for mean in errors.values()), errors
