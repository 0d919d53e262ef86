"""ParetoBandit on the queries of ``budgets``: JSON in, the place of the model that each query asked out.

It runs in an environment of its own: numpy and paretobandit 0.1.1, without Clipper.
"""

import json
import logging
import sys
from typing import Any

import numpy as np
from pareto_bandit import BanditRouter
from pareto_bandit.budget_pacer import BudgetPacer, PacingMode

# It prices tokens in dollars, and scales penalties for prices between 0.0001 and 0.1 dollars for a thousand. So a cost
# of 1 is a cent, for a thousand tokens in and as many out.
DOLLARS, TOKENS = 0.01, 1000


class Groups:
    """What its router takes features from: here they are given."""

    def __init__(self, size: int) -> None:
        self.dimension = self.embedding_dim = size

    def extract_features(self, prompt: Any) -> Any:
        return prompt


def per_million(cost: float) -> dict[str, float]:
    rate = cost * DOLLARS * 1e6 / (2 * TOKENS)
    return {"input_cost_per_m": rate, "output_cost_per_m": rate}


def run(task: dict[str, Any]) -> list[int]:
    logging.disable(logging.WARNING)
    size = task["groups"] + 1
    models = [str(place) for place in range(len(task["queries"][0]["costs"]))]
    costs = task["queries"][0]["costs"]
    router = BanditRouter(
        {model: {"model_id": model, **per_million(cost)} for model, cost in zip(models, costs)},
        feature_service=Groups(size),
        bandit_seed=1,
        cost_penalty=0.0,
        budget_pacer=BudgetPacer(task["budget"] * DOLLARS, PacingMode(task["mode"])),
    )
    asked = []
    for query in task["queries"]:
        if query["costs"] != costs:
            costs = query["costs"]
            for model, cost in zip(models, costs):
                router.update_model_pricing(model, **per_million(cost))
        features = np.append(np.eye(size - 1)[query["group"]], 1.0)
        model, log = router.route(features, input_tokens=TOKENS, output_tokens=TOKENS)
        router.process_feedback(log.request_id, float(query["right"][int(model)]))
        asked.append(int(model))
    return asked


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
