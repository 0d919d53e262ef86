"""A trained classifier of texts, as its package ships it: both parts in one pipeline, and what they answer alone."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
from sklearn.pipeline import make_pipeline

folder = Path(sys.argv[1])
package = Path(find_spec("profanity_check").origin).parent / "data"
words, classifier = (joblib.load(package / f"{name}.joblib") for name in ("vectorizer", "model"))
joblib.dump(make_pipeline(words, classifier), folder / "profanity.joblib")

texts = ["what a lovely day", "you are a damn idiot", "", "日本語 né", "go to hell"]
vectors = words.transform(texts)
case = {"target": "profanity.joblib", "framework": "joblib", "inputs": texts}
cases = {
    "labels": case | {"expected": classifier.predict(vectors).tolist()},
    "probabilities": case | {"output": "probabilities", "expected": classifier.predict_proba(vectors).tolist()},
}
(folder / "cases.json").write_text(json.dumps(cases))
