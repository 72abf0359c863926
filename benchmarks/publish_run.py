"""Copy what documents a run into docs/: its run.json, its curves, its pictures, made small.

python benchmarks/publish_run.py runs/mlp-batchnorm docs/results/mlp-batchnorm --steps 0 400 2000
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image

from tinygan.run.arguments import one_line_errors, whole
from tinygan.run.folder import RunFolder

FILES = ("run.json", "evaluation.json", "losses.png", "parzen_curve.json", "parzen_curve.png")


def strip(run: Path, steps: list[int], scale: int = 2, gap: int = 8) -> Image.Image:
    """The sample grids of `steps`, side by side."""
    grids = [Image.open(RunFolder(run).sample(step)).convert("L") for step in steps]
    width = sum(grid.width * scale + gap for grid in grids) - gap
    row = Image.new("L", (width, max(grid.height for grid in grids) * scale), 255)
    x = 0
    for grid in grids:
        row.paste(grid.resize((grid.width * scale, grid.height * scale)), (x, 0))
        x += grid.width * scale + gap
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=whole(0), nargs="+", required=True, help="sample grids")
    parser.add_argument("--gif", type=Path, help="copy samples.gif to this path")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (given.run / name).exists():
            shutil.copyfile(given.run / name, given.out / name)
    strip(given.run, given.steps).save(given.out / "samples.png", optimize=True)
    if given.gif:
        shutil.copyfile(given.run / "samples.gif", given.gif)


if __name__ == "__main__":
    with one_line_errors():
        main()
