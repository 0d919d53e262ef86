"""The old path of ``clipper.policies``: policies that users stored import ``clipper.selection.policies``."""

import sys

from clipper import policies

sys.modules["clipper.selection.policies"] = policies
