"""The models as a runtime of MLServer's."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.codecs.pandas import PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse
from models import MODELS


class Zoo(MLModel):
    async def load(self) -> bool:
        self.zoo = MODELS[self.name]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            StringCodec.encode_output(name, list(map(_text, np.asarray(array).flatten().tolist())))
            if self.zoo.outputs[name][0] == "BYTES"
            else NumpyCodec.encode_output(name, array)
            for name, array in self.zoo.answer(self._arrays(payload)).items()
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)

    def _arrays(self, payload):
        if payload.parameters is not None and payload.parameters.content_type == PandasCodec.ContentType:
            frame = PandasCodec.decode_request(payload)
            return {name: frame[name].to_numpy() for name in frame}
        found = {
            each.name: self.decode(each, default_codec=StringCodec if each.datatype == "BYTES" else NumpyCodec)
            for each in payload.inputs
        }
        # Clients call a single input what they like.
        return {"input": found.popitem()[1]} if list(self.zoo.inputs) == ["input"] and len(found) == 1 else found


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
