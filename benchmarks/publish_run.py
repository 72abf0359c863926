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

FILES = (
    *("run.json", "evaluation.json", "losses.png"),
    *("parzen_curve.json", "parzen_curve.png", "parzen_validation.json", "parzen_validation.png"),
)


def enlarged(path: Path) -> Image.Image:
    """A picture of samples, grey where it has no colour, small ones twice as large."""
    picture = Image.open(path)
    picture = picture.convert("RGB" if picture.mode == "RGB" else "L")
    return (
        picture
        if picture.width > 400
        else picture.resize((2 * picture.width, 2 * picture.height), 0)
    )


def strip(run: Path, steps: list[int]) -> Image.Image:
    """The pictures of `steps`, side by side; wide ones below one another."""
    gap, pictures = 8, [enlarged(RunFolder(run).sample(step)) for step in steps]
    width, height = pictures[0].size
    down = width > height * 1.2
    across = (0, height + gap) if down else (width + gap, 0)
    size = [max(p.size[i] for p in pictures) + across[i] * (len(pictures) - 1) for i in (0, 1)]
    row = Image.new(pictures[0].mode, (size[0], size[1]), "white")
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * across[0], i * across[1]))
    return row


def shades(picture: Image.Image) -> Image.Image:
    """Few greys; or colours by an octree: a median cut loses those of a few dots."""
    if picture.mode == "L":
        return picture.quantize(12)
    return picture.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def small_gif(run: Path, path: Path) -> None:
    """The pictures as a film of few frames and shades, early steps close together."""
    pictures = sorted(RunFolder(run).samples.glob("step_*.png"))
    frames, last = 36, len(pictures) - 1
    chosen = sorted({round(last * (i / (frames - 1)) ** 2) for i in range(frames)})
    film = [enlarged(pictures[i]) for i in chosen]
    film = [shades(picture) for picture in film]
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
