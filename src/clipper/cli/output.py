"""The output of commands: results on standard output, progress and errors on standard error."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Column, Table

from clipper.errors import ClipperError, ContainerFailed, InvalidArgument

# Shorter work prints no progress lines to a file.
_SILENT_S = 2.0

# A record of some fields fits into a line; one of hundreds would fill the screen.
_TYPE_WIDTH = 120
# Width of tables that do not go to a terminal, so that rows are not wrapped.
_FILE_WIDTH = 240

# Characters that control a terminal or reverse the text direction, except for line ends and tabs.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Output:
    """Prints a command's results, as text for people or as JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(
            highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _FILE_WIDTH
        )

    def done(self, result: object, text: str, next_step: str = "") -> None:
        """Print what was done and the next step, or ``result`` as JSON."""
        if self.as_json:
            self._write_json(result)
            return
        self._console.print(printable(text), soft_wrap=True)
        if next_step:
            self._console.print(next_step, style="dim", soft_wrap=True)

    def secret(self, result: object, text: str, next_step: str) -> None:
        """Print a secret alone on standard output, for uses like ``$(clipper key create me)``."""
        self.done(result, text)
        if not self.as_json:
            _console_of_errors().print(next_step, style="dim", soft_wrap=True)

    def table(self, result: object, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
        """Print rows; or ``empty``, which says what to do, if there are none."""
        if self.as_json:
            self._write_json(result)
        elif not rows:
            self._console.print(printable(empty), soft_wrap=True)
        else:
            heads = (Column(column, overflow="fold") for column in columns)
            table = Table(*heads, box=None, pad_edge=False, header_style="bold")
            for row in rows:
                table.add_row(*("-" if cell is None or cell == "" else printable(str(cell)) for cell in row))
            self._console.print(table)

    def sections(self, result: object, sections: Mapping[str, Sequence[tuple[str, object]]]) -> None:
        """Print names and values under headings; sections without a row are left out."""
        if self.as_json:
            self._write_json(result)
            return
        shown = {title: rows for title, rows in sections.items() if rows}
        width = max(len(name) for rows in shown.values() for name, _ in rows)
        for title, rows in shown.items():
            if title:
                self._console.print(f"\n{title}", style="bold")
            table = Table(Column(width=width), Column(overflow="fold"), box=None, pad_edge=False, show_header=False)
            for name, value in rows:
                table.add_row(name, "-" if value in (None, "") else printable(str(value)))
            self._console.print(table)

    def page(self, file: Path, html: str) -> None:
        """Write a page to a file. Raises InvalidArgument if it cannot be written."""
        with reported(file, "written"):
            file.write_text(html, "utf-8")
        self.note(f"written to {file}")

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line of a longer report. With ``--json`` it is left out: the result has its content."""
        if not self.as_json:
            self._console.print(printable(text), style=style, soft_wrap=True)

    def note(self, *texts: str | None) -> None:
        """Print remarks about a table, except for None. With ``--json`` they are left out: the result has them."""
        for text in () if self.as_json else texts:
            if text is not None:
                self._console.print(printable(text), style="dim", soft_wrap=True)

    def warn(self, *texts: str | None) -> None:
        """Warn on standard error that the result may not be as intended. Texts may be None or empty."""
        for text in filter(None, texts):
            _console_of_errors().print(printable(f"warning: {text}"), style="yellow", soft_wrap=True)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show progress on a terminal; the function that the block gets changes the text.

        Elsewhere, as in a pipe or a job's log, lines report the progress of longer work.
        """
        console = _console_of_errors()
        # Notebooks and CI set FORCE_COLOR, which makes Console take their files for terminals.
        if sys.stderr.isatty():
            with console.status(text) as status:
                yield status.update
            return
        began_s, last = time.monotonic(), ""

        def say(new: str) -> None:
            nonlocal last
            if new != last and time.monotonic() - began_s > _SILENT_S:
                last = new
                console.print(printable(new), soft_wrap=True)

        yield say

    def _write_json(self, result: object) -> None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")
        sys.stdout.flush()


@contextmanager
def reported(path: Path, what: str) -> Iterator[None]:
    """Raise InvalidArgument, which names the file, in place of an error of the system."""
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be {what}: {error.strerror or error}") from error


def _console_of_errors() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def shown_type(text: str) -> str:
    """Return the text of a type for a line or a table: that of a record with many fields is cut."""
    return text if len(text) <= _TYPE_WIDTH else f"{text[:_TYPE_WIDTH].rpartition(',')[0] or text[:_TYPE_WIDTH]}, …"


def printable(text: str) -> str:
    """Return text of any origin, such as a container's log, with the characters that control a terminal as escapes."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_error(error: ClipperError, *, as_json: bool = False) -> None:
    """Print the cause, and the last lines of a container that could not start or of the installer.

    The lines are left out if the container itself said why it ended, because that is the cause. JSON is an object as
    the management port answers it, on a line of standard error.
    """
    if as_json:
        told: dict[str, object] = {"error": error.code, "message": str(error)}
        if isinstance(error, ContainerFailed):
            told["log_tail"] = error.log_tail
        sys.stderr.write(msgspec.json.encode(told).decode() + "\n")
        return
    console = _console_of_errors()
    console.print(printable(f"error: {error}"), style="red", soft_wrap=True)
    if not isinstance(error, ContainerFailed) or not error.log_tail:
        return
    if error.log_tail[-1].startswith("clipper: "):  # the container said why it ended
        console.print("its log has more: clipper logs MODEL, or logs/ in the server's home", style="dim")
    elif len(error.log_tail) > 1 or error.log_tail[0] not in str(error):
        console.print("its last lines:", style="dim")
        for line in error.log_tail:
            console.print(printable(f"  {line}"), soft_wrap=True)
