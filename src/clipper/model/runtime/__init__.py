"""What runs inside a Python model process: ``python -m clipper.model.runtime`` loads one model and serves it.

It runs in the model's own environment, Python 3.10 or later: it imports the standard library, numpy, and of
Clipper only ``errors``, ``values`` and ``model``.
"""
