"""The code of the docs' pages: every fenced block, and how a page is followed as a reader would follow it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Longer than any one command may take on a busy machine.
WITHIN_S = 600
FREE_PORTS = " --query-port 0 --management-port 0 --grpc-port off"
# Commands that do something else the second time.
ONCE = ("clipper start", "clipper stop", "clipper deploy", "clipper app create", "clipper app link")
# Pages that are read out of order, whose commands test_followed_pages.py runs.
FOLLOWED = (
    "cascades",
    "confidence",
    "configuration-file",
    "dashboard",
    "decision-log",
    "ensembles",
    "events-and-series",
    "experiments",
    "feedback",
    "load",
    "logs-and-traces",
    "newcomers",
    "open-inference",
    "policies",
    "selection",
)
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``line`` is that of its first line, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, section: str = "") -> Iterator[Block]:
    """The blocks of a page, or of one of its sections, in order."""
    whole = page.read_text()
    begin = whole.index(f"\n## {section}\n") + 1 if section else 0
    end = f"{whole}\n## ".index("\n## ", begin) if section else len(whole)
    for found in _FENCE.finditer(whole, begin, end):
        line = whole.count("\n", 0, found.start()) + 2
        text = re.sub(f"(?m)^{found[1]}", "", found[3])
        yield Block(page.relative_to(ROOT).as_posix(), line, found[2], text)


def commands(text: str) -> list[str]:
    """The commands of a block, each with the lines that its quotations and backslashes take in."""
    found, begun = [], ""
    for line in text.splitlines():
        begun += line + "\n"
        whole = begun.rstrip()
        # The shell itself, bash where a page needs more than sh, says whether a command goes on in the next line.
        if (
            whole.endswith("\\")
            or subprocess.run(["bash", "-n", "-c", begun], capture_output=True, check=False).returncode
        ):
            continue
        if whole.strip() and not whole.lstrip().startswith("#"):
            found.append(whole)
        begun = ""
    assert not begun, f"a command that does not end: {begun}"
    return found


def pattern(shown: str) -> re.Pattern[str]:
    """The pattern of an output that a page shows: any numbers, blanks of any width, and anything for ``…``."""
    parts = re.split(r"(…|[\d█][\d.,█%]*|\s+)", shown.strip())
    anything = {"…": r".*?"}

    def one(part: str) -> str:
        if not part or part in anything:
            return anything.get(part, "")
        if part.isspace():
            return r"\s+"
        return r"[\d█-][\d.,█%e-]*" if part[0].isdigit() or part[0] == "█" else re.escape(part)

    return re.compile("".join(map(one, parts)), re.DOTALL)


@dataclass
class Reader:
    """Follows a page in a folder, with a home of its own there: saves its files and runs its commands."""

    folder: Path
    # By text of a command: its replacement on this machine, such as an objective that a loaded machine keeps.
    changes: dict[str, str] = field(default_factory=dict)
    # How a server is started beside others.
    ports: str = FREE_PORTS

    def shell(self, command: str) -> list[str]:
        return ["sh", "-c", command]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLIPPER_")}
        caches = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Pages name ~/.clipper, which is the home then.
        return kept | caches | {"HOME": str(self.folder), "PATH": path, "COLUMNS": "250"}

    def run(self, command: str) -> str:
        """Run a command of a page, and return what it prints.

        Raises:
            AssertionError: it failed.
        """
        for old, new in self.changes.items():
            command = command.replace(old, new)
        if command.startswith("clipper start"):
            command += self.ports
        done = subprocess.run(
            self.shell(command),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("clipper start"):
            self._learn_ports(done.stdout)
        return done.stdout

    def save(self, block: Block) -> bool:
        """Save a block whose first line names a file, such as ``# train.py``."""
        named = re.match(r"(?:#|//) ([\w./-]+\.\w+)\b.*\n", block.text)
        if named:
            (self.folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / named[1]).write_text(block.text)
        return named is not None

    def _learn_ports(self, started: str) -> None:
        queries, management = re.findall(r" at https?://([\d.]+:\d+)", started)[:2]
        self.changes |= {"localhost:1337": queries, "localhost:1338": management}


def follow(page: Path, reader: Reader, skip: tuple[str, ...] = (), again: int = 3, section: str = "") -> list[str]:
    """Do what a page, or one of its sections, says, in order, and hold each output that it shows against what comes.

    Args:
        skip: commands that begin so are not run, such as those that install.
        again: how often commands that may be repeated are run again until the output is as shown: pages tell their
            readers to repeat what depends on how much has happened meanwhile.

    Returns:
        the commands that were run.
    """
    ran: list[str] = []
    latest: list[str] = []
    printed = ""
    for block in blocks(page, section):
        if block.language == "sh":
            latest = [command for command in commands(block.text) if not command.startswith(skip)]
            printed = "".join(map(reader.run, latest))
            ran += latest
        elif block.language in ("text", "json"):
            shown = pattern(block.text)
            for _ in range(0 if any(command.startswith(ONCE) for command in latest) else again):
                if shown.search(normal(printed)):
                    break
                printed = "".join(map(reader.run, latest))
            assert shown.search(normal(printed)), f"{block.place} shows\n{block.text}\nand this came\n{printed}"
        else:
            assert reader.save(block), f"{block.place}: nothing says as which file the block is to be saved"
    return ran


def normal(printed: str) -> str:
    """An output with what its program writes otherwise than pages show it: lines of JSON without blanks get them."""
    lines = printed.splitlines(keepends=True)
    blanks = re.compile(r'(?<=[":,\]}\w])([:,])(?=["\[{\w])')
    return "".join(blanks.sub(r"\1 ", line) if line.startswith("{") else line for line in lines)
