"""``python -m clipper.supervisor.managers.ray.guard FOLDER``: ends what an actor leaves behind.

It waits until its standard input ends, which is when the actor's process ends, however that ends. Then it kills all
processes of the folder, removes the folder, and ends its output. It is no child of the actor's process, because a
worker of Ray that loses its node kills its children.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from clipper.base.processes.marks import kill_marked
from clipper.base.trees import remove_tree


def main() -> None:
    folder = Path(sys.argv[1])
    if os.fork():
        os._exit(0)
    # Only the end of the input ends it, not a signal to all processes that Ray or a terminal has started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    asyncio.run(_end(f"{folder}/run/"))
    remove_tree(folder)


async def _end(prefix: str) -> None:
    clean_looks = 0
    while clean_looks < 3:
        clean_looks = 0 if kill_marked(lambda mark: mark.startswith(prefix)) else clean_looks + 1
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    main()
