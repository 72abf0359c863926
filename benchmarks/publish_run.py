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


def small_gif(run: Path, path: Path, frames: int = 36, scale: int = 2) -> None:
    """The sample grids as a film of few frames and grey levels, early steps close together."""
    grids = sorted(RunFolder(run).samples.glob("step_*.png"))
    last = len(grids) - 1
    chosen = sorted({round(last * (i / (frames - 1)) ** 2) for i in range(frames)})
    film = []
    for i in chosen:
        grid = Image.open(grids[i]).convert("L")
        film.append(grid.resize((grid.width * scale, grid.height * scale), 0).quantize(12))
    durations = [180] * (len(film) - 1) + [2500]
    film[0].save(path, save_all=True, append_images=film[1:], duration=durations, loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=whole(0), nargs="+", required=True, help="sample grids")
    parser.add_argument("--gif", type=Path, help="make a small film of the grids")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (given.run / name).exists():
            shutil.copyfile(given.run / name, given.out / name)
    strip(given.run, given.steps).save(given.out / "samples.png", optimize=True)
    if given.gif:
        small_gif(given.run, given.gif)


if __name__ == "__main__":
    with one_line_errors():
        main()
