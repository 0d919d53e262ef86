"""FastAPI, which calls the model in the web process, row by row.

``READS=pydantic`` is how its users write it; ``simd`` gives the body's bytes to Clipper's parser, which checks less.
``THREADS=1`` calls the model in FastAPI's pool of threads, for models that release the interpreter's lock.
"""

import os

import fast_json
import model
from fastapi import FastAPI, Request
from pydantic import BaseModel, create_model

app = FastAPI()
predictor = model.load()

if model.IS_TABLE:
    import table_model

    fields = dict.fromkeys(table_model.NUMBERS, float | None) | dict.fromkeys(table_model.TEXTS, str)
    Row = create_model("Row", **fields)
else:
    Row = list[float]


class Query(BaseModel):
    input: Row


def label(row):
    rows = table_model.frame([row.__dict__]) if isinstance(row, BaseModel) else [row]
    return {"label": predictor.predict(rows)[0].item()}


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
