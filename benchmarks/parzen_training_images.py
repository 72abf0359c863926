"""What real training images score as if they were samples: the figure to hold a G's against.

    python benchmarks/parzen_training_images.py

The protocol of `python -m tinygan evaluate RUN --metric parzen`, with the first 10 000 training
images of MNIST in the place of 10 000 samples. Writes results/parzen_training_images.json.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

import numpy as np

from tinygan.data import load_mnist
from tinygan.metrics import parzen
from tinygan.run.arguments import one_line_errors
from tinygan.run.atomic import write_json
from tinygan.run.evaluate import SAMPLES, SIGMA_POINTS, VALIDATION
from tinygan.run.manifest import describe_data, machine, versions

OUT = Path(__file__).resolve().parent / "results" / "parzen_training_images.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="the folder of MNIST's idx files")
    given = parser.parse_args()
    train, test = (load_mnist(split, given.data_dir) for split in ("train", "test"))
    pictures = (train.images[:SAMPLES], train.images[-VALIDATION:][:SIGMA_POINTS], test.images)
    score = parzen(*(images.reshape(len(images), -1) / np.float32(255) for images in pictures))
    print(f"{score.mean:.1f} ± {score.standard_error:.1f} nats, sigma {score.sigma:.4g}")
    report = {
        "command": "python benchmarks/parzen_training_images.py",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions("numpy"),
        "data": describe_data(train),
        "samples": SAMPLES,
        "mean": score.mean,
        "standard_error": score.standard_error,
        "sigma": score.sigma,
    }
    write_json(OUT, report)


if __name__ == "__main__":
    with one_line_errors():
        main()
