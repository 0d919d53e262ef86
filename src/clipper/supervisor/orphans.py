"""``python -m clipper.supervisor.orphans``: list, or end, what runs in a home whose supervisor is gone.

It prints a list of ``Orphan`` as JSON: those that run or, with ``--end``, those that it has ended. The other options,
and the exit codes, are those of ``clipper.supervisor``.
"""

import asyncio
import os
import sys

import msgspec

from clipper.base.processes.folder import running
from clipper.errors import ClipperError
from clipper.settings.home import Orphan, lock_home
from clipper.supervisor.config import Config, parse_command_line
from clipper.supervisor.folders import HomeFolders, facilities_of, open_home
from clipper.supervisor.managers.open import open_cluster_host, open_launchers
from clipper.supervisor.workers import ports, takeover
from clipper.supervisor.workers.settings import worker_note

END = "--end"


async def look(config: Config, home: HomeFolders) -> list[Orphan]:
    """List what runs for the home. Changes nothing: a supervisor may be taking it over meanwhile."""
    found = [
        Orphan(f"worker {note.index}", "local", record.pid, ports.address(note.settings.host, note.settings.port))
        for record in running(home.run)
        if (note := worker_note(record)) is not None
    ]
    for name, launcher in open_launchers(facilities_of(config, home)).items():
        found += [Orphan(str(note.slot), name, pid) for note, pid in await launcher.seen()]
    return found


async def end(config: Config, home: HomeFolders) -> list[Orphan]:
    """Let workers answer their open queries, and end everything that runs for the home, which has to be locked.

    Processes on a cluster are left to the servers that share a registry.
    """
    found = await look(config, home)
    facilities = facilities_of(config, home)
    if config.registry is None and (cluster := open_cluster_host(facilities, None)) is not None:
        try:
            for record in await cluster.orphans():
                await cluster.end(record)
        finally:
            cluster.close()
    launchers = open_launchers(facilities, "everywhere" if config.registry is None else "here")
    await takeover.end_all_orphans(facilities.processes, home, launchers.values())
    home.remove_sockets_folder()
    home.place.unlink(missing_ok=True)
    return found


def main() -> int:
    arguments = sys.argv[1:]
    ends = END in arguments
    config = parse_command_line([one for one in arguments if one != END])
    try:
        home = open_home(config.home)
        if ends:
            lock = lock_home(home.root)
            found = asyncio.run(end(config, home))
            os.close(lock)
        else:
            found = asyncio.run(look(config, home))
    except (ClipperError, OSError) as error:
        sys.stderr.write(f"clipper: {error}\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
