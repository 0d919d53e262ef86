"""``python -m clipper.runtime``: load one model, listen, serve until SIGTERM.

Exit codes: 0 after SIGTERM, 2 wrong usage, 3 the model cannot be loaded, 4 it cannot listen on the address. Unless it
is 0, the last line on stderr says why and what to do.
"""

import sys
from importlib.util import find_spec

from clipper.runtime.process import EXIT_NOT_LOADED


def main() -> int:
    if find_spec("numpy") is None:
        sys.stderr.write(
            f"clipper: {sys.executable} has no numpy, which Clipper's runtime needs: install it there "
            f"({sys.executable} -m pip install numpy), or deploy with --requirements, for which Clipper makes an "
            "environment with numpy\n"
        )
        return EXIT_NOT_LOADED
    # All of this needs numpy.
    from clipper.runtime import program

    return program.main()


if __name__ == "__main__":
    sys.exit(main())
