"""A handler of TorchServe's: a batch of bodies in, an answer for each out.

Bodies come as application/octet-stream: of the JSON type, TorchServe would read them itself, with the json module.
``READS`` is ``json`` or ``simd``.
"""

import json
import os

import fast_json
import model
import numpy as np

SIMD = os.environ["READS"] == "simd"
predictor = None


def handle(data, context):
    global predictor  # noqa: PLW0603  # TorchServe calls this once without data, to have it load
    if predictor is None:
        predictor = model.load()
    if not data:
        return None
    bodies = [bytes(each.get("body") or each.get("data")) for each in data]
    rows = [fast_json.row(body) if SIMD else json.loads(body)["input"] for body in bodies]
    return [{"label": label} for label in predictor.predict(np.array(rows)).tolist()]
