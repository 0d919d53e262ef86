"""XGBoost's and scikit-learn's trees that read digits: ``xgboost_digits.py FOLDER DIGITS_CSV_GZ``."""

import sys
from pathlib import Path

import joblib
import numpy as np
import xgboost
from sklearn.ensemble import RandomForestClassifier

TRAINED_ON = 1500


def main(folder: Path, digits: Path) -> None:
    table = np.loadtxt(digits, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64], table[:, 64].astype(int)
    boosted = xgboost.XGBClassifier(n_estimators=50, max_depth=4, n_jobs=1)
    boosted.fit(images[:TRAINED_ON], labels[:TRAINED_ON]).save_model(folder / "boosted.ubj")
    forest = RandomForestClassifier(n_estimators=100, n_jobs=1, random_state=0)
    joblib.dump(forest.fit(images[:TRAINED_ON], labels[:TRAINED_ON]), folder / "forest.joblib")
    np.save(folder / "inputs.npy", images[TRAINED_ON : TRAINED_ON + 64])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
