"""FastAPI, which calls the model in the web process, row by row.

``READS=pydantic`` is how its users write it; ``simd`` gives the body's bytes to Clipper's parser, which checks less.
``THREADS=1`` calls the model in FastAPI's pool of threads, for models that release the interpreter's lock.
"""

import os

import fast_json
import model
from fastapi import FastAPI, Request
from pydantic import BaseModel

app = FastAPI()
predictor = model.load()


class Query(BaseModel):
    input: list[float]


def label(row):
    return {"label": predictor.predict([row])[0].item()}


if os.environ["READS"] == "simd":

    @app.post("/predict")
    async def predict(request: Request):
        return label(fast_json.row(await request.body()))

elif os.environ.get("THREADS") == "1":

    @app.post("/predict")
    def predict(query: Query):
        return label(query.input)

else:

    @app.post("/predict")
    async def predict(query: Query):
        return label(query.input)
