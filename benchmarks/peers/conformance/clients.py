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
# Why a check has another result with another server, by program, server and the check's beginning; and why it is meant
# to fail with both.
DIFFERENCES = Path(__file__).with_name("differences.json")
FAILURES = Path(__file__).with_name("failures.json")
# How the text of a check begins that got no answer.
FAILED = ("raises", "refused", "failed", "error")
# A program without a server beside Clipper says this of a check that is as it has to be.
RIGHT = "right"
PROGRAM_WITHIN_S = 600

# A program's findings, by check.
Found = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Program:
    """A program of ``clients/``.

    Attributes:
        what: the clients in the table.
        environment: of ``requirements``.
        packages: whose versions are told.
        beside: the server whose results Clipper's have to equal; empty if the program itself says what is right.
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
    Program(
        "openapi_clients",
        "clients that two generators make of `/openapi.json`",
        "openapi_clients",
        ("openapi-python-client", "openapi-generator-cli"),
        beside="",
    ),
)


class Reason(msgspec.Struct, frozen=True):
    """Why a check has another result with another server, or fails with both.

    Attributes:
        check: its name, or the beginning of the names of several.
        why: the reason.
    """

    program: str
    check: str
    why: str


def read_reasons(path: Path) -> list[Reason]:
    return msgspec.json.decode(path.read_bytes(), type=list[Reason])


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


def compared(program: Program, ours: Found, theirs: Found, known: Sequence[Reason]) -> tuple[int, list[str], list[str]]:
    """Return how many checks are alike, a row for each difference, and what is wrong with the differences known."""
    names = list(dict.fromkeys([*ours, *theirs]))
    unlike = [name for name in names if ours.get(name) != theirs.get(name)]
    rows, wrong = _explained(program, unlike, known, "differs")
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


def failed_in_both(
    program: Program, ours: Found, theirs: Found, meant: Sequence[Reason]
) -> tuple[int, list[str], list[str]]:
    """Return how many checks fail alike, a row for each reason, and what is wrong with the reasons."""
    failed = [name for name, text in ours.items() if text.startswith(FAILED) and theirs.get(name) == text]
    rows, wrong = _explained(program, failed, meant, "fails in both")
    told = [
        f"| {program.name} | {each.check} ({len(checks)}) | {_cell(ours[checks[0]])} | {each.why} |"
        for each, checks in rows
    ]
    return len(failed), told, wrong


def _explained(
    program: Program, names: Sequence[str], known: Sequence[Reason], what: str
) -> tuple[list[tuple[Reason, list[str]]], list[str]]:
    """Return the checks that each reason explains, and what is without a reason, and which reason is not needed."""
    of_reason = {
        each: [name for name in names if name.startswith(each.check)] for each in known if each.program == program.name
    }
    explained = {name for checks in of_reason.values() for name in checks}
    wrong = [
        f"{program.name}: {each.check!r} has a reason, and none {what}" for each, of in of_reason.items() if not of
    ]
    wrong += [f"{program.name}: {name!r} {what} without a reason" for name in names if name not in explained]
    return [(each, checks) for each, checks in of_reason.items() if checks], wrong


def client_tables(
    results: Mapping[Program, tuple[Found, Found]], known: Sequence[Reason], meant: Sequence[Reason]
) -> tuple[str, list[str]]:
    """The tables in Markdown, of all programs, of the differences and of the failures, and what is wrong."""
    heads = ["| clients | beside | checks | alike | of these fail in both |", "|---|---|---|---|---|"]
    rows: list[str] = []
    failures: list[str] = []
    wrong: list[str] = []
    for program, (ours, theirs) in results.items():
        alike, told, faults = compared(program, ours, theirs, known)
        failed, refused, unmeant = failed_in_both(program, ours, theirs, meant)
        versions = ", ".join(
            f"{each} {version_of(environment(program.environment), each)}" for each in program.packages
        )
        counts = f"{len({**ours, **theirs})} | {alike} | {failed}"
        heads.append(f"| {program.what} ({versions}) | {program.beside or '–'} | {counts} |")
        rows += told
        failures += refused
        wrong += faults + unmeant
    told = ["| program | checks | Clipper | the other | why they differ |", "|---|---|---|---|---|", *rows, ""]
    told += ["| program | checks that fail in both | both | why that is right |", "|---|---|---|---|", *failures]
    return "\n".join([*heads, "", *told]), wrong


def _cell(text: str | None) -> str:
    shown = "not asked" if text is None else text.replace("|", "\\|").replace("\n", " ")
    return f"`{shown[:57]}…`" if len(shown) > 60 else f"`{shown}`"
