"""``python -m benchmarks.peers.conformance``: send the calls of ``calls.json`` to Clipper, MLServer and Triton.

Prints their answers as a table, and exits 1 if a difference is not explained. ``--save`` puts the table into
docs/open-inference.md.
"""

import argparse
import contextlib
import http.client
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.peers.calls import Call, read_calls, shown
from benchmarks.peers.results import version_of
from benchmarks.peers.running import ANSWER_WITHIN_S, ASKED_AT_MOST, DEFAULT, running
from benchmarks.peers.table import PEERS
from benchmarks.peers.tasks import TASKS
from scripts.real_models import environment

PAGE = Path(__file__).parents[2] / "docs" / "open-inference.md"
BEGIN, END = "<!-- the table of make conformance -->", "<!-- its end -->"
# By peer: how it is called in the table, and the name of the model's output.
COMPARED = {
    "clipper-binary": ("Clipper", "output"),
    "mlserver": ("MLServer", "label"),
    "pytriton": ("Triton in PyTriton", "label"),
}
NO_ANSWER = "no answer"

Answers = Mapping[str, Sequence[str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--save", action="store_true", help="put the table into docs/open-inference.md")
    arguments = parser.parse_args()
    calls = read_calls()
    answers = {peer: answered(peer, calls) for peer in COMPARED}
    text = table(calls, answers, {peer: _version(peer) for peer in COMPARED})
    print(text)
    if arguments.save:
        PAGE.write_text(with_table(PAGE.read_text(), text))
    unexplained = [call.name for call, alike in zip(calls, _alike(answers)) if not alike and not call.differs]
    needless = [call.name for call, alike in zip(calls, _alike(answers)) if alike and call.differs]
    for names, what in ((unexplained, "differ without a reason"), (needless, "do not differ, and have a reason")):
        if names:
            print(f"{what}: {'; '.join(names)}", file=sys.stderr)
    return int(bool(unexplained or needless))


def answered(peer: str, calls: Sequence[Call]) -> list[str]:
    """Start a peer and send it the calls, each on a connection of its own."""
    output = COMPARED[peer][1]
    with running(peer, PEERS[peer], TASKS["sum"]) as server:
        return [_answer(server.port, call, output) for call in calls]


def _answer(port: int, call: Call, output: str) -> str:
    headers, body = call.request(output)
    for _ in range(ASKED_AT_MOST):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
        with contextlib.closing(connection):
            try:
                connection.request(call.method, call.path, body if call.method == "POST" else None, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                return NO_ANSWER
        # Clipper answers a default rather than late, also where a busy machine is all that is wrong.
        if DEFAULT not in text:
            break
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


def _alike(answers: Answers) -> list[bool]:
    return [len(set(row)) == 1 for row in zip(*answers.values())]


def _version(peer: str) -> str:
    found = PEERS[peer]
    python = Path(sys.executable) if found.environment is None else environment(f"peers/{found.environment}")
    return version_of(python, found.package)


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
