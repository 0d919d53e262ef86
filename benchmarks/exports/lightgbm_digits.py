"""LightGBM's trees that read digits: ``lightgbm_digits.py FOLDER DIGITS_CSV_GZ``."""

import sys
from pathlib import Path

import lightgbm
import numpy as np

TRAINED_ON = 1500


def main(folder: Path, digits: Path) -> None:
    table = np.loadtxt(digits, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64], table[:, 64].astype(int)
    boosted = lightgbm.LGBMClassifier(n_estimators=50, num_leaves=15, n_jobs=1, verbose=-1)
    boosted.fit(images[:TRAINED_ON], labels[:TRAINED_ON]).booster_.save_model(folder / "boosted.txt")
    np.save(folder / "inputs.npy", images[TRAINED_ON : TRAINED_ON + 64])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
