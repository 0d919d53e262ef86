"""Hidden Markov models of sequences of unequal lengths, and what hmmlearn itself answers."""

import json
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
from hmmlearn.hmm import GMMHMM, CategoricalHMM, GaussianHMM
from sklearn.datasets import load_digits

folder = Path(sys.argv[1])
cases = {}


def case(name, target, sequences, expected, **more):
    inputs = [sequence.tolist() for sequence in sequences]
    cases[name] = {"target": target, "framework": "pickle", "inputs": inputs, "expected": expected, **more}


# A digit is read from top to bottom: 8 steps of 8 pixels, or fewer where the last lines are left out.
images, digits = load_digits(return_X_y=True)
sequences = [image.reshape(8, 8)[: 8 - index % 3] for index, image in enumerate(images)]


def fitted(model, digit):
    chosen = [sequence for sequence, is_digit in zip(sequences[:900], digits == digit) if is_digit]
    return model.fit(np.concatenate(chosen), [len(sequence) for sequence in chosen])


def gaussian(digit):
    return fitted(
        GaussianHMM(7, "diag", n_iter=10, min_covar=1.0, transmat_prior=1.5, startprob_prior=1.5, random_state=1), digit
    )


models = {f"digit {digit}": gaussian(digit) for digit in range(4)}
asked = [sequence for sequence, digit in zip(sequences[900:], digits[900:]) if digit < 4][:20]
scores = [{label: model.score(sequence) for label, model in models.items()} for sequence in asked]
best = [max(score, key=score.get) for score in scores]
right = [f"digit {digit}" for digit in digits[900:] if digit < 4][:20]
assert sum(a == b for a, b in zip(best, right)) >= 15, "the models recognise digits"
(folder / "digits.pkl").write_bytes(pickle.dumps(models))
case("labels", "digits.pkl", asked, best)


def posterior(score):
    likelihoods = {label: float(np.exp(value - max(score.values()))) for label, value in score.items()}
    return {label: likelihood / sum(likelihoods.values()) for label, likelihood in likelihoods.items()}


case("probabilities", "digits.pkl", asked, [posterior(score) for score in scores], output="probabilities")

one = models["digit 0"]
joblib.dump(one, folder / "one.joblib")
case("states", "one.joblib", asked, [one.predict(sequence).tolist() for sequence in asked])
case("state probabilities", "one.joblib", asked, [one.predict_proba(s).tolist() for s in asked], output="probabilities")

mixture = fitted(GMMHMM(2, 2, n_iter=2, min_covar=1.0, random_state=1), 5)
joblib.dump(mixture, folder / "mixture.joblib")
case("mixture", "mixture.joblib", asked, [mixture.predict(sequence).tolist() for sequence in asked])

symbols = [(sequence.sum(1) > 30).astype(int) for sequence in sequences]
categorical = CategoricalHMM(2, n_iter=3, random_state=1)
categorical.fit(np.concatenate(symbols[:50])[:, None], [len(sequence) for sequence in symbols[:50]])
joblib.dump(categorical, folder / "symbols.joblib")
case("symbols", "symbols.joblib", symbols[:9], [categorical.predict(s[:, None]).tolist() for s in symbols[:9]])

case("other output", "digits.pkl", asked, [], output="scores")

(folder / "cases.json").write_text(json.dumps(cases))
