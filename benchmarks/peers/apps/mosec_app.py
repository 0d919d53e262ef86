"""Mosec: a web server in Rust, and Python processes that read bodies and run the model.

``READS=orjson`` is what its users write; ``simd`` is Clipper's parser; ``json`` what it does unless told else.
"""

import os
import sys

import fast_json
import model
import numpy as np
import orjson
from mosec import Server, Worker


class Orjson(Worker):
    def deserialize(self, data):
        return orjson.loads(data)["input"]

    def serialize(self, data):
        return orjson.dumps(data)


class Simd(Orjson):
    def deserialize(self, data):
        return fast_json.row(bytes(data))


class Json(Worker):
    def deserialize(self, data):
        return super().deserialize(data)["input"]


class Predictor({"json": Json, "orjson": Orjson, "simd": Simd}[os.environ["READS"]]):
    def __init__(self):
        super().__init__()
        self.model = model.load()

    def forward(self, rows):
        if os.environ["MAX_BATCH"] == "1":  # it gives a row, not a list of one
            return {"label": self.model.predict(np.array([rows]))[0].item()}
        return [{"label": label} for label in self.model.predict(np.array(rows)).tolist()]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", os.environ["PORT"], "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Predictor,
        num=int(os.environ["WORKERS"]),
        max_batch_size=int(os.environ["MAX_BATCH"]),
        max_wait_time=int(os.environ["WAIT_MS"]),
    )
    server.run()
