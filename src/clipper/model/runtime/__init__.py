"""The program of a Python model's process: ``python -m clipper.model.runtime`` loads a model and serves it.

It runs in the model's own environment, with Python 3.10 or later. It imports the standard library, numpy, and of
Clipper only ``errors``, ``values`` and ``model``.
"""
