"""LitServe: web processes, and processes that run the model."""

import os

import litserve
import model
import numpy as np


class Predictor(litserve.LitAPI):
    def setup(self, device):
        self.model = model.load()

    def decode_request(self, request):
        return request["input"]

    def batch(self, inputs):
        return np.array(inputs)

    def predict(self, rows):
        return self.model.predict(rows).tolist()

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"label": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Predictor(max_batch_size=int(os.environ["MAX_BATCH"]), batch_timeout=float(os.environ["WAIT_MS"]) / 1000),
        accelerator="cpu",
        workers_per_device=int(os.environ["WORKERS"]),
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=int(os.environ["FRONTS"]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
