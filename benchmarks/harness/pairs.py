"""Processor time of a query in two installs of Clipper, beside each other: pairs of servers, alternating rounds."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import servers, wrk
from benchmarks.harness.workbench import FOUR, HERE, TURN_S

# Two servers of one install were seen to differ by a fifth as long as they ran, so that several pairs share the rounds.
ROUNDS = 2
# Until the cache is full each query takes new pages, and clearing them costs the kernel as much as all else of a query.
WARM_UP_QUERIES = 20_000
# So long that no query is answered with the default, which costs less, however busy the machine is.
SLO_MS = 200
SINGLE, EXP3 = "sum", "exp3"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load.

    Attributes:
        application: ``SINGLE``, whose only model is a sum, or ``EXP3`` over five such models.
    """

    script: Path = FOUR
    connections: int = 32
    application: str = SINGLE


def query_us(commands: Sequence[str], cases: Mapping[str, Case], pairs: int) -> dict[str, list[list[float]]]:
    """Return the worker's processor time for a query, in µs, for each case: a row for each round, a column for each
    command.

    Args:
        commands: ``clipper`` of each install.
        pairs: how often the servers are started anew.
    """
    measured: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(pairs):
        with ExitStack() as stack:
            sides = [stack.enter_context(servers.clipper(command=command)) for command in commands]
            for server in sides:
                create_applications(server, {case.application for case in cases.values()}, SLO_MS)
            workers = [server.process_ids()[1] for server in sides]
            for name, case in cases.items():
                for server in sides:
                    _warm_up(server, case)
                for _ in range(ROUNDS):
                    measured[name].append([_query_us(*side, case) for side in zip(sides, workers)])
    return measured


def create_applications(server: servers.ClipperServer, wanted: set[str], slo_ms: int) -> None:
    """Deploy models, and create the applications of this module that are ``wanted``."""
    models = [f"sum-{number}" for number in range(5 if EXP3 in wanted else 1)]
    for model in models:
        server.run("deploy", model, "total:total", "--input-type", "doubles", folder=HERE / "models")
    asked = {SINGLE: (models[:1], "single"), EXP3: (models, "exp3")}
    for name in sorted(wanted):
        links, policy = asked[name]
        options = [option for model in links for option in ("--model", model)]
        server.run("app", "create", name, *options, "--policy", policy, "--slo-ms", str(slo_ms), "--default", "-1")


def _warm_up(server: servers.ClipperServer, case: Case) -> None:
    requests = 0
    while requests < WARM_UP_QUERIES:
        load = wrk.run(server.url(case.application), case.script, connections=32, seconds=TURN_S)
        requests += load.requests


def _query_us(server: servers.ClipperServer, worker: int, case: Case) -> float:
    before_ns = servers.processor_ns(worker)
    load = wrk.run(server.url(case.application), case.script, connections=case.connections, seconds=TURN_S)
    return (servers.processor_ns(worker) - before_ns) / load.requests / 1e3
