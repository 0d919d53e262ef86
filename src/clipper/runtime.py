"""``python -m clipper.runtime`` and ``clipper.runtime.trace``: public paths of ``clipper.model.runtime``.

Programs and models that users wrote, images and supervisors of earlier versions name these paths.
"""

import runpy
import sys

from clipper.model.runtime import trace

sys.modules["clipper.runtime.trace"] = trace

if __name__ == "__main__":
    runpy.run_module("clipper.model.runtime", run_name="__main__", alter_sys=True)
