"""The models as Triton's backend for Python takes them: each has its own folder with this file in it."""

import triton_python_backend_utils as utils
from models import MODELS


class TritonPythonModel:
    def initialize(self, args):
        self.model = MODELS[args["model_name"]]

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        arrays = {name: utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.model.inputs}
        outputs = self.model.answer(arrays)
        return utils.InferenceResponse([utils.Tensor(name, each) for name, each in outputs.items()])
