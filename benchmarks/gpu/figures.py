"""The four figures: those of ``benchmarks.paper`` on other models, and PyTriton by ``benchmarks.peers``."""

import argparse
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gpu import use
from benchmarks.gpu.nets import EFFICIENT, FASHION, NETS, Net, deploy, prepare
from benchmarks.gpu.place import Missing, Place
from benchmarks.harness.load import post
from benchmarks.harness.machine import facts
from benchmarks.paper import batching_gain, latency_profiles, replicas
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.loads import serve
from benchmarks.paper.training import pictures_file
from benchmarks.peers.__main__ import measure
from benchmarks.peers.results import Results, tables
from benchmarks.peers.running import PeerFailed
from benchmarks.peers.table import PEERS
from benchmarks.peers.tasks import Task
from scripts.real_models import environment

BODIES = Path(__file__).parents[1] / "bodies.lua"
# Far over what a batch takes: what is measured is the throughput of replicas that always have queries.
SCALED_SLO_MS = 5_000
PYTRITON = "pytriton-torch"
BESIDE = ("pytriton", "pytriton-binary")
BESIDE_SLO_MS = 100
# Has PyTorch name itself and its device in the words of ``clipper model show``.
RUNTIME = (
    "import torch; cuda = torch.cuda.is_available(); "
    "print(f'torch {torch.__version__}, on', f'cuda ({torch.cuda.get_device_name()})' if cuda else 'CPU')"
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: int
    connections: tuple[int, ...]
    loads: tuple[float, ...]


FULL = Effort(3, 3, (1, 32, 128), (0.5, 0.9))
SHORT = Effort(1, 1, (32,), (0.5,))

# Measures a figure. Its numbers have the runtimes of its nets as ``computed_on``.
Measure = Callable[[Bench, Place, Effort], dict[str, Any]]


def latency(bench: Bench, place: Place, effort: Effort) -> dict[str, Any]:
    computed_on = {deploy(bench, place, net, net.name) for net in NETS}
    return {
        **latency_profiles.profiled(bench, {net.name: net.rows() for net in NETS}),
        "computed_on": sorted(computed_on),
    }


def batching(bench: Bench, place: Place, effort: Effort) -> dict[str, Any]:
    computed_on = set[str]()
    models = {net.name: _by_rule(bench, place, effort, net, computed_on) for net in NETS}
    return {"rounds": effort.rounds, "models": models, "computed_on": sorted(computed_on)}


def _by_rule(bench: Bench, place: Place, effort: Effort, net: Net, computed_on: set[str]) -> dict[str, Any]:
    bodies = net.write_bodies(bench.server.home / f"{net.name}.jsonl")

    def deployed(rule: str) -> str:
        name = f"{net.name}-{rule}"
        computed_on.add(deploy(bench, place, net, name, "--batching", rule))
        return bench.create(f"{name}-app", [name], slo_ms=net.slo_ms)

    def waiting(application: str, seconds: int) -> Mapping[str, float]:
        model = batching_gain.model_of(application)
        return serve(bench, application, model, BODIES, net.connections, seconds, bodies)

    found = batching_gain.compared(bench, deployed, {"waiting": waiting}, effort.rounds, effort.seconds)
    rates = ", ".join(f"{rule} {one['waiting']['outputs_per_s']:,.0f}" for rule, one in found.items())
    bench.tell(f"{net.name:<20} outputs/s in time: {rates}")
    return found


def describe_batching(numbers: Numbers) -> str:
    nets = "; ".join(f"{net.name}: {net.connections} connections, {net.slo_ms} ms" for net in NETS)
    return (
        f"Outputs a second in time, and the 99th percentile in ms, in the best of {numbers['rounds']} rounds, from "
        f"clients that wait ({nets}):\n\n{batching_gain.rules_table(numbers['models'], 'waiting')}"
    )


def replica_counts(place: Place) -> list[int]:
    """Return the numbers of replicas to measure: up to one for each GPU, and two where there are fewer."""
    return [count for count in (1, 2, 4, 8) if count <= max(2, place.gpus)]


def scaling(bench: Bench, place: Place, effort: Effort) -> dict[str, Any]:
    computed_on = deploy(bench, place, EFFICIENT, EFFICIENT.name)
    bench.create(EFFICIENT.name, [EFFICIENT.name], slo_ms=SCALED_SLO_MS)
    path = f"/{EFFICIENT.name}/predict"
    requests = itertools.cycle([post(path, b'{"input":%b}' % text) for text in encode_inputs(EFFICIENT.rows())])
    counts = replicas.scaled(bench, EFFICIENT.name, replica_counts(place), requests, effort.seconds)
    return {"counts": counts, "computed_on": [computed_on]}


def beside(bench: Bench, place: Place, effort: Effort) -> dict[str, Any]:
    """Clipper and PyTriton with the same net, from the same environment. The server of ``bench`` has no part in it."""
    python = environment(f"peers/{PYTRITON}")
    said = subprocess.run([str(python), "-c", RUNTIME], check=True, capture_output=True, text=True, timeout=120)
    computed_on = place.check(said.stdout.strip())
    reads = (FASHION.file(), pictures_file(fashion_mnist().train))
    task = Task("net", FASHION.what, BESIDE_SLO_MS, "net_model.py", f"peers/{PYTRITON}", reads, "pt")
    options = ["--input-type", "float64[784]", "--output", "labels", "--python", str(python), *place.options]
    # PyTriton takes the first GPU as Clipper counts them.
    peers = {
        name: replace(
            PEERS[name],
            environment=PYTRITON,
            settings={**PEERS[name].settings, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        )
        for name in BESIDE
    }
    peers["clipper"] = replace(PEERS["clipper"], settings={"DEPLOY": json.dumps([*options, "--start-timeout", "110"])})
    asked = argparse.Namespace(
        rounds=effort.rounds, seconds=effort.seconds, connections=effort.connections, loads=effort.loads
    )
    sides = {name: measure(name, peers, task, asked) for name in BESIDE}
    if problems := [f"{name}: {side.problem}" for name, side in sides.items() if side.problem]:
        raise PeerFailed("; ".join(problems))
    results = Results(facts(), effort.rounds, effort.seconds, {task.name: sides})
    return {"results": msgspec.to_builtins(results), "computed_on": [computed_on]}


def describe_beside(numbers: Numbers) -> str:
    [text] = tables(msgspec.convert(numbers["results"], Results)).values()
    return f"PyTriton, and Clipper beside it, on {FASHION.what}.\n\n{text}"


def figures(place: Place, effort: Effort) -> list[Figure]:
    """Return all figures, as they are measured there."""

    def figure(
        name: str,
        what: str,
        measure_it: Measure,
        describe: Callable[[Numbers], str],
        within_s: float,
        prepare_it: Callable[[], object] = prepare,
    ) -> Figure:
        def measured(bench: Bench) -> Numbers:
            with use.watched(os.environ) as seen:
                numbers = measure_it(bench, place, effort)
            if place.gpus and not bench.server.metrics().total("clipper_gpu_memory_size_bytes"):
                raise Missing("Clipper's own /metrics has no GPU, though this machine has: see the server's log")
            return {**numbers, "place": place.note, "gpus": use.summary(seen)}

        def described(numbers: Numbers) -> str:
            head = f"{numbers['place']} Nets ran in {'; '.join(numbers['computed_on'])}."
            return "\n".join([head, "", describe(numbers), use.describe(numbers["gpus"])])

        return Figure(
            name, what, measured, lambda _: Verdict(), described, is_timed=True, within_s=within_s, prepare=prepare_it
        )

    return [
        figure("figure_3", "figure 3: how long batches of a net take", latency, latency_profiles.describe, 300),
        figure("figure_4", "figure 4: what batches are worth", batching, describe_batching, 480),
        figure("figure_6", "figure 6: replicas of a net", scaling, replicas.describe_table, 300),
        figure("figure_11", "figure 11: beside PyTriton", beside, describe_beside, 600, _prepare_beside),
    ]


def _prepare_beside() -> None:
    environment(f"peers/{PYTRITON}")
    FASHION.file()
