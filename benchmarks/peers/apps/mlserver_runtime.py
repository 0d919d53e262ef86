"""The models that are not scikit-learn's, as a runtime of MLServer's."""

import asyncio

import model
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = model.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = np.asarray(self.decode(payload.inputs[0], default_codec=NumpyCodec))
        # One that sleeps is not to hold the loop.
        sums = await asyncio.to_thread(self.model.predict, rows) if self.is_slow else self.model.predict(rows)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("label", sums)])

    @property
    def is_slow(self) -> bool:
        return isinstance(self.model, model.Slept)
