"""Chooses the process that the kernel ends first if memory runs out."""

from contextlib import suppress
from pathlib import Path

# The kernel should end a model rather than the server, which can start the model again.
OOM_SCORE_ADJUSTMENT = 500


def end_first(pid: int | str) -> None:
    """Let the kernel end a process before others. Some sandboxes close this file; the process also runs without."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT))
