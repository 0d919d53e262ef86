"""``python -m benchmarks.peers.conformance``: Clipper beside Triton, PyTriton and MLServer, asked by the same clients.

Sends the calls of ``calls.json``, and runs the programs of ``clients/``. Prints two tables, and exits 1 if a difference
is not explained. ``--save`` puts the tables into docs/open-inference.md. ``--clients`` runs some of the programs alone.
"""

import argparse
import contextlib
import http.client
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.peers.conformance.calls import Call, read_calls, shown
from benchmarks.peers.conformance.clients import (
    DIFFERENCES,
    FAILURES,
    PROGRAMS,
    RIGHT,
    Found,
    Program,
    client_tables,
    found_by,
    read_reasons,
)
from benchmarks.peers.conformance.servers import SERVERS
from benchmarks.peers.results import version_of
from benchmarks.peers.running import ANSWER_WITHIN_S, PeerFailed, Running, running
from benchmarks.peers.tasks import TASKS
from scripts.real_models import environment

PAGE = Path(__file__).parents[3] / "docs" / "open-inference.md"
BEGIN, END = "<!-- the table of make conformance -->", "<!-- its end -->"
# By server: how it is called in the table of calls, and the name of the model's output.
COMPARED = {
    "clipper": ("Clipper", "output"),
    "triton": ("Triton", "output"),
    "pytriton": ("Triton in PyTriton", "label"),
    "mlserver": ("MLServer", "output"),
}
# Of the server that PyTriton brings, as it says itself; the package's version is PyTriton's.
TRITON_VERSION = "2.51.0"
NO_ANSWER = "no answer"

Answers = Mapping[str, Sequence[str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--save", action="store_true", help="put the tables into docs/open-inference.md")
    parser.add_argument("--clients", nargs="*", metavar="PROGRAM", help="run these programs alone, and send no calls")
    arguments = parser.parse_args()
    programs = [each for each in PROGRAMS if not arguments.clients or each.name in arguments.clients]
    calls = [] if arguments.clients else read_calls()
    wrong: list[str] = []
    with ExitStack() as stack:
        names = list(COMPARED) if calls else ["clipper", *sorted({each.beside for each in programs} - {""})]
        servers = {name: stack.enter_context(running(name, SERVERS[name], TASKS["sum"])) for name in names}
        answers = {name: answered(name, servers[name], calls) for name in names}
        found: dict[Program, tuple[Found, Found]] = {}
        for each in programs:
            try:
                ours = found_by(each, servers["clipper"])
                theirs = found_by(each, servers[each.beside]) if each.beside else dict.fromkeys(ours, RIGHT)
                found[each] = ours, theirs
            except PeerFailed as error:
                wrong.append(str(error))
    text, faults = client_tables(found, read_reasons(DIFFERENCES), read_reasons(FAILURES))
    wrong += faults
    if calls:
        text = f"{table(calls, answers, {name: _version(name) for name in names})}\n\n{text}"
        wrong += [f"call {call.name!r} {fault}" for call, fault in zip(calls, _faults(calls, answers)) if fault]
    print(text)
    if arguments.save and calls:
        PAGE.write_text(with_table(PAGE.read_text(), text))
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


def answered(name: str, server: Running, calls: Sequence[Call]) -> list[str]:
    """Send a server the calls, each on a connection of its own."""
    return [_answer(server.port, call, COMPARED[name][1]) for call in calls]


def _answer(port: int, call: Call, output: str) -> str:
    headers, body = call.request(output)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    with contextlib.closing(connection):
        try:
            connection.request(call.method, call.path, body if call.method == "POST" else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return NO_ANSWER
    return shown(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)


def table(calls: Sequence[Call], answers: Answers, versions: Mapping[str, str]) -> str:
    """The table in Markdown: a row for each call."""
    heads = [f"{COMPARED[peer][0]} {versions[peer]}" for peer in answers]
    lines = [f"| call | {' | '.join(heads)} | why they differ |", "|---" * (len(heads) + 2) + "|"]
    for call, row in zip(calls, zip(*answers.values())):
        lines.append(f"| {call.name} | {' | '.join(row)} | {call.differs} |")
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """The page with another table between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def _faults(calls: Sequence[Call], answers: Answers) -> list[str]:
    """For each call what is wrong with its reason, empty if nothing is."""
    alike = [len(set(row)) == 1 for row in zip(*answers.values())]
    return [
        ""
        if is_alike != bool(call.differs)
        else "does not differ, and has a reason"
        if is_alike
        else "differs without a reason"
        for call, is_alike in zip(calls, alike)
    ]


def _version(name: str) -> str:
    if name == "triton":
        return TRITON_VERSION
    server = SERVERS[name]
    python = Path(sys.executable) if server.environment is None else environment(f"peers/{server.environment}")
    return version_of(python, server.package)


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
