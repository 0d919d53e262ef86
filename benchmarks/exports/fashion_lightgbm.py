"""LightGBM's trees that tell clothes apart: ``fashion_lightgbm.py FOLDER PICTURES_NPZ``."""

import sys
from pathlib import Path

import lightgbm
import numpy as np


def main(folder: Path, pictures: Path) -> None:
    data = np.load(pictures)
    trees = lightgbm.LGBMClassifier(
        n_estimators=80, num_leaves=31, colsample_bytree=0.3, n_jobs=1, verbose=-1, random_state=0
    )
    fitted = trees.fit(data["inputs"].astype(np.float32), data["labels"])
    fitted.booster_.save_model(folder / "boosted.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
