"""The figures draw their numbers."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.wrk import Load
from benchmarks.paper import (
    batching_gain,
    coupling,
    decoupling,
    delayed_batching,
    ensembles,
    failure,
    latency_profiles,
    networks,
    personalization,
    right_in_time,
    simulated_failure,
    stragglers,
)
from benchmarks.paper.arrivals import Reply
from benchmarks.paper.bench import encode_inputs
from benchmarks.paper.data import repetitions
from benchmarks.paper.figure import Figure, shows_gain
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.loads import best

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
    "sizes_bytes": dict.fromkeys(ensembles.MODELS, 1_000_000),
    "model_errors": dict.fromkeys(ensembles.MODELS, 0.13),
    "ensemble_error": 0.12,
    "agreement": AGREEMENT,
}
SIMULATED_FAILURE = {
    "seeds": 40,
    "errors": {
        name: {"mean": mean, "half_interval": 20.0}
        for name, mean in (("exp3", 3100), ("exp4", 2700), ("paper_exp3", 3200), ("paper_exp4", 3000))
    },
}
FAILURE = {
    "queries": 20_000,
    "sampled_every": 100,
    "errors": {"exp3": 3000, "exp4": 2900, **dict.fromkeys(failure.MODELS, 3800)},
    "share_of_broken": {name: [0.9] * 50 + [0.5, 0.3, 0.1] + [0.0] * 57 + [0.8] * 90 for name in failure.POLICIES},
    "cumulative_errors": {name: list(range(201)) for name in ("exp3", "exp4", *failure.MODELS)},
    "simulated": SIMULATED_FAILURE,
    "simulated_as_papers": SIMULATED_FAILURE,
}


def served(per_s: float) -> dict[str, float]:
    return {"outputs_per_s": per_s, "p50_ms": 5.0, "p99_ms": 19.0, "default_share": 0.0, "mean_batch": 9.0}


BATCHING_GAIN = {
    "slo_ms": 20,
    "offered_per_s": 20_000,
    "rounds": 3,
    "connections": 128,
    "models": {
        name: {
            rule: {load: served(per_s * (single if rule == "none" else 1)) for load in batching_gain.LOADS}
            for rule, per_s in (("none", 100.0), ("aimd", 2500.0), ("quantile", 2400.0), ("goodput", 2600.0))
        }
        for name, single in (("linear-svm", 1), ("random-forest", 1), ("kernel-svm", 25))
    },
}
DELAYED_BATCHING = {
    "slo_ms": 20,
    "offered_per_s": 20_000,
    "rounds": 3,
    "delays_ms": delayed_batching.DELAYS_MS,
    "models": {
        name: {
            rule: [served(per_s) for per_s in rates]
            for rule, rates in (("aimd", (5000.0, 9000.0, 16000.0, 9000.0)), ("goodput", (16000.0,) * 4))
        }
        for name in ("linear-svm", "fixed-cost")
    },
}
STRAGGLERS = {
    "slo_ms": 20,
    "sizes": [
        {
            "size": size,
            "mitigated": {
                "mean_ms": 5.0,
                "p50_ms": 4.0,
                "p99_ms": 20.0,
                "missing_share": 0.01 * size,
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
    "error_after": [0.4, 0.18, 0.17, 0.16, 0.15, 0.1, 0.08, 0.05, 0.03],
    "half_interval": [0.01] * 9,
    "own_error": 0.2,
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
        | {"loop_per_s": 9000}
        for name in ("linear-svm", "kernel-svm")
    },
}


def coupled(cpp: float, python: float) -> dict[str, Any]:
    """Of so many requests/s where the coupled server answers 1,000."""
    times = {"p99_ms": 5.0, "failed": 0, "mean_ms": 3.0, "queue_ms": 1.0, "batch_ms": 1.0, "mean_batch": 9.0}
    rates = {"coupled": 1000.0, "cpp": cpp, "python": python}
    return {server: {"requests_per_s": per_s, **times} for server, per_s in rates.items()}


COUPLING = {"connections": {connections: coupled(960.0, 830.0) for connections in ("32", "128")}}
NETWORK = {
    "picture_bytes": 150_528,
    "links": {
        name: [
            {"replicas": count, "outputs_per_s": rate, "mean_ms": 60.0, "p99_ms": 100.0 * count}
            for count, rate in enumerate(rates, 1)
        ]
        for name, rates in (("unlimited", (400.0, 800.0, 1200.0, 1590.0)), ("1 Gbit/s", (300.0, 600.0, 790.0, 800.0)))
    },
}
DATASETS = {"sets": {"Vowel": {"what": "vowels", "train": 1, "held_out": 2, "features": 3, "labels": 4}}}
RIGHT_IN_TIME = {
    "slo_ms": 100,
    "rates_per_s": [50, 200],
    "models": {"a": {"rows_per_s": 100, "quality": 0.98}, "b": {"rows_per_s": 5000, "quality": 0.8}},
    "possible": [0.98, 0.89],
    "served": {
        name: [{"right_share": share, "default_share": 0.0, "errors": 0} for share in (0.97, 0.88)]
        for name in (*right_in_time.POLICIES, *right_in_time.ALONE)
    },
}

# By figure: numbers that show all that the paper says, and keep all that Clipper promises.
NUMBERS: dict[str, Mapping[str, Any]] = {
    "datasets": DATASETS,
    "network": NETWORK,
    "coupling": COUPLING,
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
    "right_in_time": RIGHT_IN_TIME,
}
BY_NAME = {figure.name: figure for figure in FIGURES}


def changed(numbers: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy in which what ``path`` names, by keys and positions, is ``value``."""
    copy: Any = deepcopy(dict(numbers))
    at = copy
    *keys, last = [key.replace("~", "/") for key in path.split("/")]
    for key in keys:
        at = at[int(key) if isinstance(at, list) else key]
    at[int(last) if isinstance(at, list) else last] = value
    return copy


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_that_shows_all_that_the_paper_says(figure: Figure) -> None:
    verdict = figure.judge(NUMBERS[figure.name])
    assert [claim.says for claim in (*verdict.paper, *verdict.promises) if not claim.holds] == []
    assert verdict.reproduced == len(verdict.paper)
    # In a cell of a table.
    for claim in (*verdict.paper, *verdict.promises):
        assert not {"|", "\n"} & {*claim.says, *claim.here, *claim.reason}
    assert all(claim.reason for claim in verdict.paper if "straight line" not in claim.here)
    assert figure.describe(NUMBERS[figure.name]).startswith("| ") or "\n| " in figure.describe(NUMBERS[figure.name])


@pytest.mark.parametrize(
    ("name", "path", "value", "says"),
    [
        ("latency_profiles", "profiles/linear-svm/2/p99_ms", 20.1, "largest batches"),
        ("latency_profiles", "profiles/linear-svm/1/p50_ms", 19.0, "linearly"),
        ("ensembles", "ensemble_error", 0.127, "errs 5.2% less"),
        ("ensembles", "agreement/0/confident_error", 0.12, "4 of 5"),
        ("ensembles", "agreement/0/unsure_error", None, "4 of 5"),
        ("ensembles", "agreement/1/confident_error", 0.08, "all 5"),
        ("ensembles", "agreement/1/unsure_error", 0.23, "all 5"),
        ("failure", "errors/exp3", 3800, "err less over all of it"),
        ("failure", "errors/third", 2000, "err less over all of it"),
        ("failure", "share_of_broken/exp3", [0.9] * 50 + [0.0] * 150, "return to it"),
        ("failure", "share_of_broken/exp4", [0.9] * 200, "return to it"),
        ("batching_gain", "models/linear-svm/aimd", dict.fromkeys(batching_gain.LOADS, served(1340)), "26 times"),
        (
            "batching_gain",
            "models/kernel-svm/none",
            dict.fromkeys(batching_gain.LOADS, served(2000)),
            "kernel SVM nothing",
        ),
        ("batching_gain", "models/random-forest/quantile/waiting/outputs_per_s", 2000.0, "nearly level"),
        ("batching_gain", "models/linear-svm/aimd/waiting/p99_ms", 21.1, "99th percentile"),
        ("delayed_batching", "models/linear-svm/aimd/2/outputs_per_s", 10_800.0, "delay of 2 ms"),
        ("stragglers", "sizes/1/blocking/p99_ms", 39.0, "waits for all"),
        ("stragglers", "sizes/1/mitigated/p99_ms", 23.1, "within 3 ms"),
        ("stragglers", "sizes/1/mitigated/missing_share", 0.015, "missing"),
        ("stragglers", "sizes/1/mitigated/accuracy", 0.81, "accuracy grows"),
        ("stragglers", "sizes/1/blocking/accuracy", 0.88, "cost little"),
        ("replicas", "counts/3/outputs_per_s", 970.0 * 3.79, "3.95 times"),
        ("replicas", "counts/3/p99_ms", 90.0, "stays flat"),
        ("network", "links/unlimited/3/outputs_per_s", 1400.0, "faster network"),
        ("network", "links/1 Gbit~s/3/outputs_per_s", 1000.0, "network is the limit"),
        ("network", "picture_bytes", 100_000, "network is the limit"),
        ("network", "links/1 Gbit~s/3/p99_ms", 120.0, "latency grows"),
        ("personalization", "error_after/4", 0.2, "each piece"),
        ("personalization", "error_after/0", 0.35, "without feedback"),
        ("personalization", "error_after/1", 0.22, "one piece of feedback"),
        ("personalization", "error_after/8", 0.22, "after 8 pieces"),
        ("feedback_cache", "ratio", 1.3, "1.63"),
        ("coupling", "connections", {"32": coupled(880.0, 830.0)}, "in C++"),
        ("coupling", "connections", {"32": coupled(960.0, 770.0)}, "in Python"),
    ],
)
def test_a_statement_of_the_paper_that_does_not_hold_is_a_finding(
    name: str, path: str, value: object, says: str
) -> None:
    verdict = BY_NAME[name].judge(changed(NUMBERS[name], path, value))
    assert any(says in claim.says for claim in verdict.paper if not claim.holds)


@pytest.mark.parametrize(
    ("name", "path", "value", "says"),
    [
        ("failure", "simulated/errors/exp3/mean", 3201, "the paper's own policies"),
        ("failure", "simulated/errors/exp4/mean", 3001, "the paper's own policies"),
        ("failure", "simulated_as_papers/errors/exp3/mean", 3201, "err as the paper's"),
        ("failure", "share_of_broken/exp4", [0.9] * 60 + [0.0] * 60 + [0.8] * 80, "within 500"),
        ("batching_gain", "models/linear-svm/quantile/offered/outputs_per_s", 2900.0, "best other rule"),
        ("delayed_batching", "models/fixed-cost/goodput/0/outputs_per_s", 14_300.0, "without a delay"),
        ("stragglers", "sizes/0/mitigated/p50_ms", 10.0, "do not wait"),
        ("stragglers", "sizes/1/mitigated/default_share", 0.02, "default"),
        ("replicas", "counts/1/outputs_per_s", 970.0 * 1.79, "each replica"),
        ("replicas", "counts/2/default_share", 0.02, "default"),
        ("decoupling", "models/kernel-svm/clipper/together/requests_per_s", 1800.0, "0.95"),
        ("decoupling", "models/kernel-svm/batching/together/requests_per_s", 3400.0, "0.9 of"),
        ("decoupling", "models/linear-svm/clipper/alone/p50_ms", 2.1, "1 ms"),
        ("decoupling", "models/linear-svm/clipper/alone/failed", 1, "fails"),
        ("coupling", "connections/32/cpp/failed", 1, "fails"),
        ("right_in_time", "served/adaptive/1/right_share", 0.84, "at each rate"),
        ("right_in_time", "served/single/0/default_share", 0.006, "defaults"),
    ],
)
def test_a_promise_that_is_broken(name: str, path: str, value: object, says: str) -> None:
    verdict = BY_NAME[name].judge(changed(NUMBERS[name], path, value))
    assert [promise for promise in verdict.broken if says in promise.says]
    assert verdict.reproduced == len(verdict.paper)


@pytest.mark.parametrize(
    ("measured", "papers", "shows"),
    [(13.5, 26, True), (13.4, 26, False), (1.0, 26, False), (1.32, 1.63, True), (1.31, 1.63, False)],
)
def test_half_of_a_gain_shows_it(measured: float, papers: float, shows: bool) -> None:
    assert shows_gain(measured, papers) is shows


def test_a_querys_time_is_split_into_queue_batch_and_rest() -> None:
    loads = [Load(3000, rate, 1.0, 4.0, 0, 1) for rate in (900.0, 1000.0, 1100.0)]
    spent = [{"waited_s": 0.3, "queries": 3000, "took_s": 0.6, "batches": 300}] * 3
    assert coupling.describe(loads, spent, 32) == {
        "requests_per_s": 1000.0,
        "p99_ms": 4.0,
        "failed": 3,
        "mean_ms": 32.0,
        "queue_ms": 1.0,
        "batch_ms": 2.0,
        "mean_batch": 10.0,
    }


def test_inputs_are_json_without_needless_digits() -> None:
    assert encode_inputs(np.array([[0.0, 255.0], [-3.639, 0.5]])) == [b"[0,255]", b"[-3.639,0.5]"]
    assert encode_inputs(np.array([[0.5, 2.0]], np.float32)) == [b"[0.5,2]"]
    assert encode_inputs(np.array([[[0], [255]]], np.uint8)) == [b'"AP8="']


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
    assert batching_gain.gain(BATCHING_GAIN["models"]["linear-svm"]) == 25.0  # type: ignore[index]


@pytest.mark.long
def test_paper_policies_leave_a_failing_model_on_the_answers_ours_get() -> None:
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


def test_a_rule_has_its_best_round() -> None:
    rounds = [{"outputs_per_s": per_s, "p99_ms": 20 - per_s} for per_s in (1.0, 3.0, 2.0)]
    assert best(rounds) == rounds[1]
