"""The models as Clipper takes them: ``Zoo`` is each of them, by the name in its data."""

from pathlib import Path

from models import MODELS


class Zoo:
    def __init__(self, model_data):
        self.model = MODELS[Path(model_data).read_text()]

    def predict_batch(self, inputs):
        arrays = inputs if isinstance(inputs, dict) else {"input": inputs}
        columns = {name: each[:, None] if getattr(each, "ndim", 2) == 1 else each for name, each in arrays.items()}
        outputs = self.model.answer(columns)
        return outputs["output"] if list(outputs) == ["output"] else outputs
