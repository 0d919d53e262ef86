"""Has the processes of a server that is measured do something when they start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_start(command: str, module: str, *arguments: str) -> Iterator[None]:
    """Have each Python of a ``clipper``'s environment call ``begin(*arguments)`` of a module of this folder.

    A server's processes get none of our environment, so their Python is told by a file among its packages.
    """
    [packages] = Path(command).parents[1].glob("lib/python3*/site-packages")
    told = packages / f"clipper_{module}.pth"
    folder = str(Path(__file__).parent)
    call = f"import {module}; {module}.begin{arguments!r}"
    told.write_text(f"import sys; sys.path.append({folder!r}); {call}; sys.path.remove({folder!r})\n")
    try:
        yield
    finally:
        told.unlink()
