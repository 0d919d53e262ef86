"""``python -m clipper.model.runtime``: load a model, listen, and serve until SIGTERM.

Exit codes: 0 after SIGTERM; 2 for wrong usage; 3 if the model cannot be loaded; 4 if the address cannot be bound.
Unless the code is 0, the last line on stderr says why and what to do.
"""

import logging
import sys
from importlib.util import find_spec

from clipper.model.runtime.options import parse_options
from clipper.model.runtime.process import EXIT_NOT_LOADED, start_log

log = logging.getLogger("clipper.runtime")


def main() -> int:
    arguments = parse_options()
    about = {"model": arguments.model, "version": arguments.version, "replica": arguments.replica}
    start_log(arguments.log_format, about)
    if find_spec("numpy") is None:
        log.critical(
            "%(file)s has no numpy, which Clipper's runtime needs: install it there (%(file)s -m pip install numpy), "
            "or deploy with --requirements, for which Clipper makes an environment with numpy",
            {"file": sys.executable},
        )
        return EXIT_NOT_LOADED
    # All these modules need numpy.
    from clipper.model.runtime import program

    return program.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
