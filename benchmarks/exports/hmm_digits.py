"""hmmlearn's models of digits, read from top to bottom, one a digit: ``hmm_digits.py FOLDER DIGITS_CSV_GZ``."""

import pickle
import sys
from pathlib import Path

import numpy as np
from hmmlearn.hmm import GaussianHMM

TRAINED_ON = 1500
# Without the priors a state that no training sequence leaves has no probabilities that sum to one.
SETTINGS = {"n_iter": 10, "min_covar": 1.0, "transmat_prior": 1.5, "startprob_prior": 1.5, "random_state": 1}


def main(folder: Path, digits: Path) -> None:
    table = np.loadtxt(digits, delimiter=",")
    # 8 steps of 8 pixels.
    sequences, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(int)
    models = {digit: fitted(sequences[:TRAINED_ON][labels[:TRAINED_ON] == digit]) for digit in range(10)}
    asked = sequences[TRAINED_ON : TRAINED_ON + 64]
    answers = [max(models, key=lambda digit: models[digit].score(each)) for each in asked]
    assert np.mean(answers == labels[TRAINED_ON : TRAINED_ON + 64]) > 0.5, "the models recognise digits"
    (folder / "digits.pkl").write_bytes(pickle.dumps(models))
    np.save(folder / "inputs.npy", asked)


def fitted(sequences: np.ndarray) -> GaussianHMM:
    """A model of sequences, (count, steps, features)."""
    return GaussianHMM(7, "diag", **SETTINGS).fit(np.concatenate(sequences), [len(each) for each in sequences])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
