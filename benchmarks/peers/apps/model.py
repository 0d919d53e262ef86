"""The models that every peer serves, and what they are asked: ``model.py FOLDER`` fits and writes them.

Each peer's environment fits its own, since a scikit-learn does not read what another version has saved.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

WIDTH, LABELS = 784, 10
# Of the bodies that a load sends, one after the other.
ROWS = 2048
# A model on an accelerator: most of its time is a batch's, whatever its size.
BATCH_S, ROW_S = 40e-3, 50e-6


class Sum:
    def predict(self, rows):
        return np.asarray(rows, dtype=float).sum(axis=1)


class Slept(Sum):
    """There is one accelerator, and it does one batch at a time, whichever process or thread has it."""

    def predict(self, rows):
        # Each opening of a file has a lock of its own, so that threads wait for each other as processes do.
        with (Path(os.environ["SCRATCH"]) / "device").open("w") as device:
            fcntl.flock(device, fcntl.LOCK_EX)
            time.sleep(BATCH_S + len(rows) * ROW_S)
        return super().predict(rows)


def doubled(rows):
    return np.asarray(rows) * 2


def raised(rows):
    return np.asarray(rows) + 1


def total(rows):
    return np.asarray(rows).sum(axis=1)


def ranked(left, right):
    return total(left) + total(right)


IS_TABLE = os.environ.get("TASK") in ("table", "trees")


def load():
    """The model of the task that ``TASK`` names."""
    task = os.environ["TASK"]
    if task in ("sum", "slept"):
        return Slept() if task == "slept" else Sum()
    if task == "net":
        from net_model import Net

        return Net(os.environ["MODEL"])
    import joblib

    return joblib.load(os.environ["MODEL"])


def pictures(count, seed):
    """Rows (count, 784) of numbers in 0 to 1 with four decimals, like those of MNIST: ten prototypes and noise."""
    prototypes = np.random.default_rng(12345).random((LABELS, WIDTH))
    random = np.random.default_rng(seed)
    labels = random.integers(0, LABELS, count)
    return np.round(0.5 * prototypes[labels] + 0.5 * random.random((count, WIDTH)), 4), labels


def main(folder):
    import joblib
    from sklearn.svm import LinearSVC

    svm = LinearSVC(random_state=0).fit(*pictures(1000, seed=1))
    joblib.dump(svm, folder / "svm.joblib")
    asked, _ = pictures(ROWS, seed=2)
    fours = np.round(np.random.default_rng(3).random((ROWS, 4)), 4)
    sums = {"rows": fours.tolist(), "answers": Sum().predict(fours).tolist()}
    asked_of = {"svm": {"rows": asked.tolist(), "answers": svm.predict(asked).tolist()}, "sum": sums, "slept": sums}
    # The answers of pipelines of the functions above.
    piped = {"chain": total(raised(doubled(fours))), "fanout": ranked(doubled(fours), raised(fours))}
    asked_of |= {task: {"rows": fours.tolist(), "answers": answers.tolist()} for task, answers in piped.items()}
    (folder / "rows.json").write_text(json.dumps(asked_of))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
