"""The page on the paper's figures says what the checked-in results say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import batching_gain, decoupling, failure, latency_profiles
from benchmarks.paper.figures import FIGURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper.md").read_text()


def document(figure: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "paper" / "results" / f"{figure}.json").read_text())


def numbers(figure: str) -> Any:
    return document(figure)["numbers"]


def profiles() -> list[str]:
    found = numbers("latency_profiles")
    within_ms = found["within_ms"]
    served = {name: latency_profiles.largest_within(rows, within_ms) for name, rows in found["served"].items()}
    return [profile_row(name, rows, within_ms, served[name]) for name, rows in found["profiles"].items()]


def profile_row(name: str, rows: Any, within_ms: float, served: int) -> str:
    within = [row for row in rows if row["p50_ms"] <= within_ms]
    first, last = within[0], within[-1]
    more_us = (last["p50_ms"] - first["p50_ms"]) / (last["rows"] - first["rows"]) * 1e3
    largest = latency_profiles.largest_within(rows, within_ms)
    return f"| {name} | {largest:,} | {served:,} | {first['p50_ms']:.2f} | {more_us:,.1f} |"


def batches() -> list[str]:
    return [batches_row(name, found) for name, found in numbers("batching_gain")["models"].items()]


def batches_row(name: str, found: Any) -> str:
    cells = " | ".join(
        f"{found[rule]['outputs_per_s']:,.0f} ({found[rule]['p99_ms']:.1f})" for rule in batching_gain.RULES
    )
    return f"| {name} | {cells} | {batching_gain.gain(found):.1f} × |"


def delays() -> list[str]:
    found = numbers("delayed_batching")["models"]
    return [delays_row(name, rule, rows) for name, by_rule in found.items() for rule, rows in by_rule.items()]


def delays_row(name: str, rule: str, rows: Any) -> str:
    cells = " | ".join(f"{row['outputs_per_s']:,.0f} ({row['p50_ms']:.1f}; {row['mean_batch']:.0f})" for row in rows)
    return f"| {name} | `{rule}` | {cells} |"


def scaled() -> list[str]:
    rows = numbers("replicas")["counts"]
    return [
        f"| {row['replicas']} | {row['outputs_per_s']:,.0f} | {row['outputs_per_s'] / rows[0]['outputs_per_s']:.2f} "
        f"| {row['mean_ms']:.1f} / {row['p99_ms']:.1f} |"
        for row in rows
    ]


def decoupled() -> list[str]:
    return [decoupled_row(name, found) for name, found in numbers("decoupling")["models"].items()]


def decoupled_row(name: str, found: Any) -> str:
    rates = " / ".join(f"{found[server]['together']['requests_per_s']:,.0f}" for server in decoupling.SERVERS)
    tails = " / ".join(f"{found[server]['together']['p99_ms']:.1f}" for server in decoupling.SERVERS)
    alone = " / ".join(f"{found[server]['alone']['p50_ms']:.2f}" for server in decoupling.SERVERS)
    return f"| {name} | {rates} | {tails} | {alone} | {found['loop_per_s']:,} |"


def ensembles() -> list[str]:
    found = numbers("ensembles")
    best = min(found["model_errors"].values())
    parts = [f"{part['confident_error']:.3f} / {part['unsure_error']:.3f}" for part in found["agreement"]]
    return [f"| {best:.4f} |", f"| {found['ensemble_error']:.4f} ({found['ensemble_error'] / best - 1:.1%}) |", *parts]


def failures() -> list[str]:
    found = numbers("failure")
    errors, simulated = found["errors"], found["simulated"]["errors"]
    static = min(errors[name] for name in failure.MODELS)
    served = (
        f"errors {errors['exp3']:,} and {errors['exp4']:,}; best static network {static:,}; "
        f"the broken one {errors[failure.BROKEN]:,}"
    )
    rows = [
        f"| `{name}` | {interval(simulated[name])} | {interval(simulated[f'paper_{name}'])} |"
        for name in failure.POLICIES
    ]
    return [served, *rows]


def interval(found: Any) -> str:
    return f"{found['mean']:,.0f} ± {found['half_interval']:.0f}"


def stragglers() -> list[str]:
    return [straggler_row(row["size"], row["mitigated"], row["blocking"]) for row in numbers("stragglers")["sizes"]]


def straggler_row(size: int, ours: Any, blocking: Any) -> str:
    latencies = " | ".join(f"{part['p99_ms']:.1f} / {part['mean_ms']:.1f}" for part in (ours, blocking))
    return f"| {size} | {latencies} | {ours['missing_share']:.1%} | {ours['accuracy']:.3f} "


def personalization() -> list[str]:
    found = numbers("personalization")
    after = [f"{found['error_after'][count]:.3f} ± {found['half_interval'][count]:.3f}" for count in (0, 1, 4, 8)]
    return [f"| {value} |" for value in (f"{found['pooled_error']:.3f}", f"{found['own_error']:.3f}", *after)]


def feedback_cache() -> list[str]:
    return [f"| {numbers('feedback_cache')['ratio']:.2f} × "]


def state() -> list[str]:
    """The commit, and how much else the machine did while times were measured."""
    documents = [document(figure.name) for figure in FIGURES]
    loads = [each["machine"]["load_before"] for figure, each in zip(FIGURES, documents) if figure.is_timed]
    # Figures that time nothing may be measured again on a busy machine; the others wait for a quiet one.
    by_kind = [
        {each["machine"]["revision"] for figure, each in zip(FIGURES, documents) if figure.is_timed is is_timed}
        for is_timed in (True, False)
    ]
    revisions = [f"`{revision[:12]}`" for of_kind in by_kind for revision in of_kind]
    assert [len(of_kind) for of_kind in by_kind] == [1, 1]
    return [*revisions, f"load averages of {min(loads):.1f} to {max(loads):.1f}"]


@pytest.mark.parametrize(
    "expected",
    [
        profiles,
        batches,
        delays,
        scaled,
        ensembles,
        failures,
        stragglers,
        personalization,
        feedback_cache,
        decoupled,
        state,
    ],
)
def test_page_has_the_measured_numbers(expected: Any) -> None:
    missing = [text for text in expected() if text not in PAGE]
    assert missing == []


def test_pictures_are_there() -> None:
    for name in [figure.name for figure in FIGURES]:
        assert f"../benchmarks/paper/results/{name}.png" in PAGE
        assert (ROOT / "benchmarks" / "paper" / "results" / f"{name}.png").stat().st_size > 1_000
