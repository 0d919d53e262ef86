"""``python -m clipper.supervisor``: run a server until SIGTERM, SIGINT or ``POST /stop``.

Exit codes: 0 after a stop, 1 it cannot run and the last line on stderr says why, 2 wrong usage.
"""

import logging
import os
import sys

import uvloop

from clipper.errors import ClipperError
from clipper.home import lock_home
from clipper.malloc import keep_large_pieces_apart, share_one_arena
from clipper.open_files import raise_limit
from clipper.run_as import check_able, forbid_new_privileges
from clipper.supervisor.config import parse_command_line
from clipper.supervisor.folders import close_home, open_home
from clipper.supervisor.server import Supervisor
from clipper.types import STORE_VARIABLE


def main() -> int:
    config = parse_command_line()
    keep_large_pieces_apart()
    share_one_arena()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It tells of each start and stop, and we tell that ourselves.
    # What clients do wrong they are told, and could fill the log with.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        # It is read by now, and nothing that we start is to find it there but the workers.
        os.environ.pop(STORE_VARIABLE, None)
        if config.models_user is not None:
            check_able()
            # All that is started from here on inherits it.
            forbid_new_privileges()
        home = open_home(config.home)
        lock = lock_home(home.root)
        close_home(home, config.models_user)
        uvloop.run(Supervisor(config, home, raise_limit()).run())
    except (ClipperError, OSError) as error:  # an OSError: a file of the home, on a disk that is full or not ours
        sys.stderr.write(f"clipper: {error}\n")
        return 1
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
