"""Runs programs with other people's clients against several servers, and compares what they find."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.peers.results import version_of
from benchmarks.peers.running import PeerFailed, Running
from scripts.real_models import ROOT, environment

FOLDER = Path(__file__).parent / "clients"
PROTO = ROOT / "proto" / "open_inference.proto"
# Why a check has another result with another server, by program, server and the check's beginning.
DIFFERENCES = Path(__file__).with_name("differences.json")
PROGRAM_WITHIN_S = 600

# What a program has found, by check.
Found = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Program:
    """A program of ``clients/``.

    Attributes:
        what: the clients in the table.
        environment: of ``requirements``.
        packages: whose versions are told.
        beside: the server whose results Clipper's have to equal.
    """

    name: str
    what: str
    environment: str
    packages: tuple[str, ...]
    beside: str = "triton"


PROGRAMS = (
    Program("triton_clients", "tritonclient: HTTP, gRPC, asyncio, streams", "open_inference", ("tritonclient",)),
    Program(
        "pytriton_clients",
        "PyTriton's ModelClient, AsyncioModelClient, FuturesModelClient; the two for decoupled models, refused",
        "peers/pytriton",
        ("nvidia-pytriton",),
    ),
    Program("tritony_client", "tritony: HTTP, gRPC", "open_inference", ("tritony",)),
    Program("kserve_clients", "KServe's REST and gRPC clients", "open_inference", ("kserve",)),
    Program("perf_analyzer", "perf_analyzer with the data that it makes up", "open_inference", ("perf-analyzer",)),
    Program("proto_client", "stubs of the .proto file", "open_inference", ("grpcio-tools",)),
    Program(
        "generated_clients",
        "clients made of the protocol's OpenAPI and .proto files",
        "open_inference",
        ("open-inference-openapi", "pydantic-open-inference", "open-inference-grpc"),
    ),
    Program(
        "mlserver_clients",
        "MLServer's codecs, `pd` among them, by REST and gRPC, and `mlserver infer`",
        "peers/mlserver",
        ("mlserver",),
        beside="mlserver",
    ),
)


class Difference(msgspec.Struct, frozen=True):
    """A check that another server answers differently.

    Attributes:
        check: its name, or the beginning of the names of several.
        why: the reason.
    """

    program: str
    check: str
    why: str


def read_differences() -> list[Difference]:
    return msgspec.json.decode(DIFFERENCES.read_bytes(), type=list[Difference])


def found_by(program: Program, server: Running) -> Found:
    """Run a program against a server.

    Raises:
        PeerFailed: it failed; the message holds its error.
    """
    addresses = [f"127.0.0.1:{server.port}", f"127.0.0.1:{server.second_port}"]
    command = [str(environment(program.environment)), str(FOLDER / f"{program.name}.py"), *addresses, str(PROTO)]
    # Clients print warnings, and errors that they also raise.
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_WITHIN_S, check=False)
    if done.returncode:
        raise PeerFailed(f"{program.name} failed against {server.name}:\n{done.stderr[-3000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(
    program: Program, ours: Found, theirs: Found, known: Sequence[Difference]
) -> tuple[int, list[str], list[str]]:
    """Return how many checks are alike, a row for each difference, and what is wrong with the differences known."""
    names = list(dict.fromkeys([*ours, *theirs]))
    unlike = [name for name in names if ours.get(name) != theirs.get(name)]
    rows, wrong, used = [], [], set()
    for difference in known:
        if difference.program == program.name:
            of_this = [name for name in unlike if name.startswith(difference.check)]
            used.update(of_this)
            if of_this:
                rows.append((difference, of_this))
            else:
                wrong.append(f"{program.name}: {difference.check!r} does not differ, and has a reason")
    wrong += [
        f"{program.name}: {name!r} differs without a reason: {ours.get(name)} | {theirs.get(name)}"
        for name in unlike
        if name not in used
    ]
    told = []
    for each, checks in rows:
        cells = [
            program.name,
            f"{each.check} ({len(checks)})",
            _cell(ours.get(checks[0])),
            _cell(theirs.get(checks[0])),
        ]
        told.append(f"| {' | '.join([*cells, each.why])} |")
    return len(names) - len(unlike), told, wrong


def client_tables(results: Mapping[Program, tuple[Found, Found]], known: Sequence[Difference]) -> tuple[str, list[str]]:
    """The tables in Markdown, of all programs and of the differences, and what is wrong."""
    heads = ["| clients | beside | checks | alike |", "|---|---|---|---|"]
    rows: list[str] = []
    wrong: list[str] = []
    for program, (ours, theirs) in results.items():
        alike, told, faults = compared(program, ours, theirs, known)
        versions = ", ".join(
            f"{each} {version_of(environment(program.environment), each)}" for each in program.packages
        )
        counts = f"{len({**ours, **theirs})} | {alike}"
        heads.append(f"| {program.what} ({versions}) | {program.beside} | {counts} |")
        rows += told
        wrong += faults
    told = ["| program | checks | Clipper | the other | why they differ |", "|---|---|---|---|---|", *rows]
    return "\n".join([*heads, "", *told]), wrong


def _cell(text: str | None) -> str:
    shown = "not asked" if text is None else text.replace("|", "\\|").replace("\n", " ")
    return f"`{shown[:57]}…`" if len(shown) > 60 else f"`{shown}`"
