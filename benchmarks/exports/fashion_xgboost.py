"""XGBoost's trees that tell clothes apart: ``fashion_xgboost.py FOLDER PICTURES_NPZ``."""

import sys
from pathlib import Path

import numpy as np
import xgboost


def main(folder: Path, pictures: Path) -> None:
    data = np.load(pictures)
    trees = xgboost.XGBClassifier(n_estimators=60, max_depth=6, learning_rate=0.2, colsample_bytree=0.3, n_jobs=1)
    trees.fit(data["inputs"].astype(np.float32), data["labels"]).save_model(folder / "boosted.ubj")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
