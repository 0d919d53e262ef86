"""Promise what is new: ``python -m tests.stable``, at a release.

With ``--anew`` the facts that are kept are those of today, also where a caller breaks by it: a new major version.
"""

import sys

from tests.stable.surfaces import KEPT, SURFACES, facts_of, kept

for surface in SURFACES:
    before = () if "--anew" in sys.argv else kept(surface)
    (KEPT / f"{surface}.txt").write_text("".join(f"{fact}\n" for fact in sorted({*facts_of(surface), *before})))
