"""Has Open Bandit Pipeline estimate policies on its logs of a shop. Run as: make_obp.py FOLDER, in its environment.

Writes cases.json, a case a target: arrays of the log, and the values that its estimators give.
"""

import json
import sys
from pathlib import Path

import numpy as np
import obp
import pandas as pd
from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting

LOGS = Path(obp.__file__).parent / "dataset" / "obd"
ITEMS = 80


def main(folder: Path) -> None:
    cases = []
    for log in ("random", "bts"):
        data = pd.read_csv(LOGS / log / "all" / "all.csv", index_col=0).sort_values("timestamp")
        item, click = data.item_id.to_numpy(), data.click.to_numpy().astype(float)
        propensity = data.propensity_score.to_numpy()
        for target in (np.eye(ITEMS)[7], np.arange(1.0, ITEMS + 1)):
            share = target / target.sum()
            expected = np.linspace(0.001, 0.01, ITEMS)
            given = {
                "reward": click,
                "action": item,
                "pscore": propensity,
                "action_dist": np.tile(share[None, :, None], (len(item), 1, 1)),
                "position": np.zeros(len(item), int),
            }
            rewards = np.tile(expected[None, :, None], (len(item), 1, 1))
            cases.append(
                {
                    "log": log,
                    "click": click.tolist(),
                    "weight": (share[item] / propensity).tolist(),
                    "expected_chosen": expected[item].tolist(),
                    "expected_target": float(share @ expected),
                    "ips": InverseProbabilityWeighting().estimate_policy_value(**given),
                    "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given),
                    "dr": DoublyRobust().estimate_policy_value(**given, estimated_rewards_by_reg_model=rewards),
                }
            )
    (folder / "cases.json").write_text(json.dumps(cases))


main(Path(sys.argv[1]))
