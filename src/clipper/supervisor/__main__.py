"""``python -m clipper.supervisor``: run a server until SIGTERM, SIGINT or ``POST /stop``.

Exit codes: 0 after a stop; 1 if it cannot run, and the last line on stderr says why; 2 for wrong usage.
"""

import gc
import logging
import os
import sys

import uvloop

from clipper.base.log_format import set_up
from clipper.base.malloc import keep_large_pieces_apart, share_one_arena
from clipper.base.open_files import raise_limit
from clipper.base.run_as import check_able, forbid_new_privileges
from clipper.errors import ClipperError
from clipper.settings.home import lock_home
from clipper.supervisor.config import parse_command_line
from clipper.supervisor.folders import close_home, open_home
from clipper.supervisor.server import Supervisor
from clipper.values.types import STORE_VARIABLE


def main() -> int:
    config = parse_command_line()
    # Imported modules stay, so the collector need not go through them: that saves a fifth of a start's time at the end.
    gc.freeze()
    keep_large_pieces_apart()
    share_one_arena()
    set_up(config.log_format, config.log_level)
    # uvicorn logs starts and stops, which the supervisor logs itself, and clients' errors, which could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        # The variable was read. Of the processes started here only workers get it, in their own environment.
        os.environ.pop(STORE_VARIABLE, None)
        if config.models_user is not None:
            check_able()
            # All processes started from here on inherit this.
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
