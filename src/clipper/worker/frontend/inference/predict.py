"""``POST /v2/models/{app}/predict``: the tensors of an infer request, with the answer of a predict call.

An infer answer cannot say what happened to each row, and fails if one row does. This one can: each row has its own
query id, default and confidence, or its own error.
"""

from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import predict_batch
from clipper.worker.frontend.inference.infer import Infer
from clipper.worker.frontend.inference.requests import AnswerForm, InferRequest, Plan
from clipper.worker.frontend.long_work import Steps
from clipper.worker.frontend.predict_request import Request
from clipper.worker.selection.query import Asker


class Predict(Infer):
    """Handles one application's calls, for all heads. One row gets a prediction, several get a batch of them."""

    def asker(self, exchange: Exchange, version: str | None, form: AnswerForm) -> Asker:
        return exchange

    def ask_all(
        self, exchange: Exchange, request: InferRequest, plan: Plan, version: str | None, arrived_s: float
    ) -> Steps:
        rows = Request(request.rows, request.features, True, plan.context, version, plan.timeout_s)
        yield from predict_batch(self.application, exchange, rows, arrived_s, self.work.budget)
