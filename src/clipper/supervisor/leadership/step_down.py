"""How a leader becomes a standby: its process starts again, with the same arguments.

Nothing that it had in memory survives, so nothing of it can act for a cluster that it no longer leads. Its workers and
containers go on, as after a supervisor that was killed, and the new start decides what becomes of them.
"""

import os
import sys
from typing import NoReturn

from clipper.supervisor.config import ADDRESSES, Config


def start_again(config: Config) -> NoReturn:
    """Descriptors, such as the lock of the home, are closed by the system."""
    addresses = {variable: getattr(config, name) for name, variable in ADDRESSES.items()}
    environment = {
        **os.environ,
        **{variable: address for variable, address in addresses.items() if address is not None},
    }
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
