"""``python -m benchmarks.attacks``: what a neighbour gets beside clients that take all they can.

Each attack goes on from 1, 5 and 30 connections while another application is asked 500 times a second with an SLO of
50 ms, and while new clients come. It exits 1 if an attack costs the neighbour 1 % of its answers or more, has a p99
over 30 ms (20 ms beside large outputs), or keeps a new client out.

The attackers run on the same machine. So the time for which the worker waited for a processor is shown, too, and does
not count: it is what 99 of 100 windows as long as the p99 waited at most. What the neighbour's container waited is
shown, and counts: of several processes that wait, nobody knows which one a query waited for.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.against import command_of
from benchmarks.attacks import attackers
from benchmarks.attacks.waits import Waits
from benchmarks.harness import servers
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.workbench import HERE
from benchmarks.rows.encryption import self_signed

PER_S, SLO_MS = 500, 50
MOST_DEFAULTS, MOST_P99_MS, MOST_P99_BESIDE_LARGE_MS = 0.01, 30.0, 20.0
OF_LARGE_OUTPUTS = (*attackers.LARGE, "large_unread", "grpc_large")
# The attack begins this much earlier than what is measured, and may end so much later.
BEFORE_S, AFTER_S = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the neighbour and new clients got beside one attack, and how much memory the worker had.

    ``waited_ms``, ``container_waited_ms``: the parts of ``p99_ms`` for which the worker, and the container of the
    neighbour's model, waited for a processor.
    """

    unanswered: float
    p99_ms: float
    waited_ms: float
    container_waited_ms: float
    kept_out: float
    newcomer_ms: float
    worker_mb: float

    def is_good(self, most_p99_ms: float) -> bool:
        added_ms = self.p99_ms - self.waited_ms
        return self.unanswered < MOST_DEFAULTS and added_ms <= most_p99_ms and self.kept_out < MOST_DEFAULTS

    def __str__(self) -> str:
        return (
            f"{self.unanswered:.1%} | {self.p99_ms:.1f} | {self.waited_ms:.1f} | {self.container_waited_ms:.1f} "
            f"| {self.kept_out:.1%} | {self.newcomer_ms:.0f} | {self.worker_mb:.0f}"
        )


def main(attacks: Sequence[str], connections: Sequence[int], seconds: float, rounds: int, commit: str | None) -> int:
    sides: dict[str, str | None] = {} if commit is None else {commit: command_of(commit)}
    sides["this"] = None
    of_neighbour = "unanswered | p99, ms | of it waiting for a processor, ms | its container waiting, ms"
    columns = f"{of_neighbour} | newcomers kept out | slowest of them, ms | worker, MB"
    print(f"| attack | connections | source | {columns} |")
    print("|---" * (3 + columns.count("|") + 1) + "|", flush=True)
    are_good = True
    for attack in ["none", *attacks]:
        for count in connections if attack in attackers.ATTACKS and attack not in attackers.OF_ONE_CLIENT else (1,):
            seen: dict[str, list[Seen]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, command in sides.items():
                    seen[name].append(beside(attack, count, seconds, command))
            for name, all_seen in seen.items():
                middle = middle_of(all_seen)
                print(f"| {attack} | {count} | {name} | {middle} |", flush=True)
                most_p99_ms = MOST_P99_BESIDE_LARGE_MS if attack in OF_LARGE_OUTPUTS else MOST_P99_MS
                are_good = are_good and (name != "this" or middle.is_good(most_p99_ms))
    return int(not are_good)


def middle_of(seen: Sequence[Seen]) -> Seen:
    return Seen(*(median(getattr(each, name) for each in seen) for name in Seen.__slots__))


def beside(attack: str, connections: int, seconds: float, command: str | None) -> Seen:
    """Start a server, attack it, and ask it."""
    with contextlib.ExitStack() as stack:
        secured: tuple[str, ...] = ()
        if attack in attackers.OF_TLS:
            secured = self_signed(Path(stack.enter_context(tempfile.TemporaryDirectory())), "ecdsa_p256")
        server = stack.enter_context(servers.clipper("--grpc-port", "0", *secured, command=command))
        for model in ("sum", "other", "kept"):
            options = [] if model == "kept" else ["--no-cache"]
            server.run("deploy", model, "total:total", "--input-type", "doubles", *options, folder=HERE / "models")
        for application, model in {"neighbour": "sum", "guest": "sum", "greedy": "other", "cached": "kept"}.items():
            options = ["--model", model, "--slo-ms", str(SLO_MS), "--default", "-1"]
            server.run("app", "create", application, *options)
        server.run(
            "deploy", "square", "square:predict", "--input-type", "doubles", "--no-cache", folder=HERE / "models"
        )
        server.run("app", "create", "large", "--model", "square", "--slo-ms", "10000")
        if attack.startswith("many_numbers"):
            input_type = f"float32[{attackers.MANY_NUMBERS}]"
            server.run("deploy", "many", "total:total", "--input-type", input_type, folder=HERE / "models")
            server.run("app", "create", "many", "--model", "many", "--slo-ms", "10000")
        address = ("https://{}:{}" if secured else "{}:{}").format(*server.query_address())
        attacked = server.run("status")["grpc_address"] if attack.startswith("grpc") else address
        worker = server.process_ids()[1]
        (model,) = server.run("model", "show", "sum")["versions"]
        container = model["replicas"][0]["pid"]
        server.load("neighbour", PER_S, BEFORE_S)
        all_s = BEFORE_S + seconds + AFTER_S
        if attack != "none":
            stack.enter_context(sent(attack, attacked, connections, all_s))
        come = stack.enter_context(sent("newcomers", address, 1, BEFORE_S + seconds))
        server.load("neighbour", PER_S, BEFORE_S)
        with Waits(worker) as waits, Waits(container) as container_waits:
            run = server.load("neighbour", PER_S, seconds)
        told, _ = come.communicate(timeout=all_s + 60)
        worker_mb = servers.resident_bytes(worker) / 1e6
    answered, failed, slowest_ms = map(float, told.split())
    p99_ms = float("inf") if run.latency_ms is None else run.latency_ms.p99
    waited_ms, container_waited_ms = (
        0.0 if p99_ms == float("inf") else each.within_ms(p99_ms, share=0.01) for each in (waits, container_waits)
    )
    unanswered = 1 - run.by_model / max(run.offered, 1)
    kept_out = failed / (answered + failed)
    return Seen(unanswered, p99_ms, waited_ms, container_waited_ms, kept_out, slowest_ms, worker_mb)


@contextlib.contextmanager
def sent(attack: str, address: str, connections: int, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-m", "benchmarks.attacks.attackers", attack, address, str(connections), str(seconds)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("attacks", nargs="*", help=f"of {', '.join(attackers.ATTACKS)}; all by default")
    parser.add_argument("--connections", default="1,5,30", help="of the attackers (1,5,30)")
    parser.add_argument("--seconds", type=float, default=6.0, help="for how long each is measured (6)")
    parser.add_argument("--rounds", type=int, default=1, help="how often; the median is shown (1)")
    parser.add_argument("--against", metavar="COMMIT", help="measure that commit, too, in turn")
    given = parser.parse_args()
    unknown = sorted(set(given.attacks) - set(attackers.ATTACKS))
    if unknown:
        parser.error(f"no attack {', '.join(unknown)}: there are {', '.join(attackers.ATTACKS)}")
    end_in_order_at_sigterm()
    counts = [int(count) for count in given.connections.split(",")]
    sys.exit(main(given.attacks or attackers.ATTACKS, counts, given.seconds, given.rounds, given.against))
