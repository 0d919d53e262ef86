"""The figures as pictures, drawn from nothing but the numbers in their result files."""

from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
from matplotlib.figure import Figure as Picture

from benchmarks.harness.pictures import common_legend, logarithmic, panels
from benchmarks.paper.batching_gain import RULES
from benchmarks.paper.decoupling import SERVERS
from benchmarks.paper.failure import BROKEN
from benchmarks.paper.feedback_cache import CACHES
from benchmarks.paper.figure import Numbers
from benchmarks.paper.simulated_failure import BREAKS_AT, RECOVERS_AT

# The same in both parts of a picture; models take others.
COLOURS = {"exp3": "black", "exp4": "0.55"}


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def latency_profiles(numbers: Numbers) -> Picture:
    picture, [axes] = panels(1)
    for number, (name, rows) in enumerate(numbers["profiles"].items()):
        sizes = [row["rows"] for row in rows]
        axes.plot(sizes, [row["p50_ms"] for row in rows], f"C{number}-", label=name)
        axes.plot(sizes, [row["p99_ms"] for row in rows], f"C{number}o", markersize=3)
        served = numbers["served"][name]
        axes.plot([row["rows"] for row in served], [row["p50_ms"] for row in served], f"C{number}:")
    axes.axhline(numbers["within_ms"], color="0.5", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("rows of a batch")
    axes.set_ylabel("latency, ms")
    axes.set_title("median (lines; dotted: through the server) and 99th percentile (dots)", fontsize=9)
    axes.legend()
    return picture


def ensembles(numbers: Numbers) -> Picture:
    bars = [(name, error, "C0") for name, error in numbers["model_errors"].items()]
    bars.append(("ensemble", numbers["ensemble_error"], "C1"))
    for part in numbers["agreement"]:
        count = part["agreeing"]
        bars.append((f"{count} agree: confident", part["confident_error"], "C2"))
        bars.append((f"{count} agree: unsure", part["unsure_error"], "C3"))
    picture, [axes] = panels(1)
    drawn = axes.barh(range(len(bars)), [error for _, error, _ in bars], color=[colour for *_, colour in bars])
    axes.bar_label(drawn, fmt="%.3f", padding=2, fontsize=8)
    axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("error")
    axes.set_title(f"Fashion-MNIST, {numbers['queries']:,} images")
    return picture


def failure(numbers: Numbers) -> Picture:
    every = numbers["sampled_every"]
    picture, [above, below] = panels(2, heights=[2, 1], share_x=True)
    for name, sums in numbers["cumulative_errors"].items():
        queries = np.arange(len(sums)) * every
        style = {"linewidth": 2.2, "color": COLOURS[name]} if name in COLOURS else {"linewidth": 1, "linestyle": "--"}
        above.plot(queries[1:], np.array(sums[1:]) / queries[1:], label=name, **style)
    for name, shares in numbers["share_of_broken"].items():
        below.plot(np.arange(len(shares)) * every, shares, label=name, color=COLOURS[name])
    for axes in (above, below):
        axes.axvspan(BREAKS_AT, RECOVERS_AT, color="0.92")
        axes.legend(ncols=2)
    above.set_ylim(0, 0.5)
    above.set_ylabel("cumulative error")
    below.set_ylabel(f"share of {BROKEN}")
    below.set_xlabel(f"queries; in the grey part {BROKEN} returns noise")
    return picture


def stragglers(numbers: Numbers) -> Picture:
    rows = numbers["sizes"]
    sizes = [row["size"] for row in rows]
    picture, [latency, missing, accuracy] = panels(3)
    for kind, colour in (("mitigated", "C0"), ("blocking", "C3")):
        latency.plot(sizes, [row[kind]["p99_ms"] for row in rows], f"{colour}-o", label=f"{kind}, p99")
        latency.plot(sizes, [row[kind]["mean_ms"] for row in rows], f"{colour}--", label=f"{kind}, mean")
        accuracy.plot(sizes, [row[kind]["accuracy"] for row in rows], f"{colour}-o", label=kind)
    latency.axhline(numbers["slo_ms"], color="0.5", linewidth=1)
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")
    missing.plot(sizes, [100 * row["mitigated"]["missing_share"] for row in rows], "C0-o")
    missing.set_ylabel("missing of the ensemble, %")
    accuracy.set_ylabel("accuracy")
    for axes in (latency, accuracy):
        axes.legend()
    for axes in (latency, missing, accuracy):
        axes.set_xlabel("forests")
    return picture


def batching_gain(numbers: Numbers) -> Picture:
    picture, both = panels(2)
    models, places = numbers["models"], np.arange(len(numbers["models"]))
    for axes, load, label in zip(both, ("offered", "waiting"), ("queries offered", "clients that wait")):
        for number, rule in enumerate(RULES):
            rates = [max(found[rule][load]["outputs_per_s"], 1.0) for found in models.values()]
            axes.bar(places + 0.2 * number, rates, 0.2, label=rule)
        axes.set_xticks(places + 0.3, [name.replace("-", "\n") for name in models])
        logarithmic(axes)
        axes.set_ylabel("outputs/s in time")
        axes.set_title(label)
    common_legend(picture, axes, len(RULES))
    return picture


def delayed_batching(numbers: Numbers) -> Picture:
    picture, [throughput, latency, batch] = panels(3)
    for number, (name, by_rule) in enumerate(numbers["models"].items()):
        for rule, rows in by_rule.items():
            style = f"C{number}{'-o' if rule == 'goodput' else '--s'}"
            for axes, what in ((throughput, "outputs_per_s"), (latency, "p50_ms"), (batch, "mean_batch")):
                axes.plot(numbers["delays_ms"], [row[what] for row in rows], style, label=f"{name}, {rule}")
    for axes, label in ((throughput, "outputs/s in time"), (latency, "median latency, ms"), (batch, "rows of a batch")):
        axes.set_xlabel("delay, ms")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    throughput.legend()
    return picture


def replicas(numbers: Numbers) -> Picture:
    rows = numbers["counts"]
    counts = [row["replicas"] for row in rows]
    picture, [throughput, latency] = panels(2)
    throughput.plot(counts, [row["outputs_per_s"] for row in rows], "C0-o", label="measured")
    throughput.plot(counts, [rows[0]["outputs_per_s"] * count for count in counts], "0.6", ls="--", label="linear")
    throughput.set_ylabel("outputs/s")
    throughput.legend()
    latency.plot(counts, [row["p99_ms"] for row in rows], "C0-o", label="p99")
    latency.plot(counts, [row["mean_ms"] for row in rows], "C0--", label="mean")
    latency.set_ylabel("latency, ms")
    latency.legend()
    for axes in (throughput, latency):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("replicas")
        axes.set_xticks(counts)
    return picture


def network(numbers: Numbers) -> Picture:
    picture, [throughput, latency] = panels(2)
    for number, (name, rows) in enumerate(numbers["links"].items()):
        counts = [row["replicas"] for row in rows]
        throughput.plot(counts, [row["outputs_per_s"] for row in rows], f"C{number}-o", label=name)
        latency.plot(counts, [row["p99_ms"] for row in rows], f"C{number}-o", label=name)
    throughput.set_ylabel("outputs/s")
    latency.set_ylabel("99th percentile, ms")
    for axes in (throughput, latency):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("replicas")
        axes.set_xticks(counts)
        axes.legend()
    return picture


def coupling(numbers: Numbers) -> Picture:
    picture, [rates, times] = panels(2)
    loads = numbers["connections"]
    servers = list(next(iter(loads.values())))
    places = np.arange(len(loads))
    for number, server in enumerate(servers):
        drawn = rates.bar(
            places + 0.27 * number, [found[server]["requests_per_s"] for found in loads.values()], 0.27, label=server
        )
        rates.bar_label(drawn, fmt="{:,.0f}", fontsize=8)
    rates.set_xticks(places + 0.27, [counted(int(connections), "connection") for connections in loads])
    rates.set_ylabel("requests/s")
    rates.legend()
    rows = [found[server] for found in loads.values() for server in servers]
    parts = {
        "in the queue": [row["queue_ms"] for row in rows],
        "in its batch": [row["batch_ms"] for row in rows],
        "rest": [max(row["mean_ms"] - row["queue_ms"] - row["batch_ms"], 0.0) for row in rows],
    }
    below = np.zeros(len(rows))
    for part, values in parts.items():
        times.bar(range(len(rows)), values, bottom=below, label=part)
        below += np.array(values)
    times.set_xticks(range(len(rows)), [f"{server}\n{load}" for load in loads for server in servers])
    times.set_ylabel("mean latency, ms")
    times.legend()
    return picture


def personalization(numbers: Numbers) -> Picture:
    after = numbers["error_after"]
    picture, [axes] = panels(1)
    axes.plot(range(len(after)), after, marker="o", label="Clipper, a context for each user")
    axes.axhline(numbers["pooled_error"], color="C3", linestyle="--", label="model of all speakers")
    axes.axhline(numbers["own_error"], color="C2", linestyle="--", label="the user's own speaker's model")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("feedbacks")
    axes.set_ylabel("error")
    axes.legend()
    axes.set_title(f"Vowel, {numbers['users']} users")
    return picture


def feedback_cache(numbers: Numbers) -> Picture:
    picture, [axes] = panels(1)
    drawn = axes.bar(CACHES, [median(numbers["observations_per_s"][kind]) for kind in CACHES], color=["C0", "C3"])
    axes.bar_label(drawn, fmt="{:,.0f}")
    axes.set_ylabel("observations/s")
    axes.set_title(f"4 models, {numbers['connections']} connections")
    return picture


def decoupling(numbers: Numbers) -> Picture:
    picture, both = panels(2)
    places = np.arange(len(numbers["models"]))
    for axes, kind, what in zip(both, ("together", "alone"), ("requests_per_s", "p50_ms")):
        for number, server in enumerate(SERVERS):
            values = [found[server][kind][what] for found in numbers["models"].values()]
            drawn = axes.bar(places + 0.27 * number, values, 0.27, label=server.replace("_", " "))
            axes.bar_label(drawn, fmt="{:,.0f}" if what == "requests_per_s" else "{:.3g}", fontsize=8)
        axes.set_xticks(places + 0.27, list(numbers["models"]))
        logarithmic(axes)
        axes.margins(y=0.1)
        axes.set_title(counted(numbers["connections"][kind], "connection"))
        axes.set_ylabel({"requests_per_s": "requests/s", "p50_ms": "median latency, ms"}[what])
    common_legend(picture, axes, len(SERVERS))
    return picture


def right_in_time(numbers: Numbers) -> Picture:
    rates = numbers["rates_per_s"]
    picture, [right, defaults] = panels(2)
    right.plot(rates, numbers["possible"], "0.6", linewidth=5, label="possible")
    for number, (name, rows) in enumerate(numbers["served"].items()):
        style = f"C{number}{':' if name.endswith(' alone') else '-o'}"
        right.plot(rates, [row["right_share"] for row in rows], style, markersize=4, label=name)
        defaults.plot(rates, [100 * row["default_share"] for row in rows], style, markersize=4, label=name)
    right.set_ylim(0, 1)
    right.set_ylabel("right in time, share of queries")
    defaults.set_ylabel("defaults, %")
    for axes in (right, defaults):
        axes.set_xscale("log", base=2)
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.set_xlabel("queries a second")
    right.legend()
    return picture


PICTURES: Mapping[str, Callable[[Numbers], Picture]] = {
    "latency_profiles": latency_profiles,
    "batching_gain": batching_gain,
    "delayed_batching": delayed_batching,
    "ensembles": ensembles,
    "failure": failure,
    "replicas": replicas,
    "stragglers": stragglers,
    "personalization": personalization,
    "feedback_cache": feedback_cache,
    "decoupling": decoupling,
    "network": network,
    "coupling": coupling,
    "right_in_time": right_in_time,
}
