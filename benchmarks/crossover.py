"""From which width on does a GPU pay? A step of an MLP GAN on NumPy and, captured, on CuPy.

    python benchmarks/crossover.py
    python benchmarks/crossover.py --quick          # a few points, under a minute
    python benchmarks/crossover.py --redraw         # the picture and the tables anew

G is 100 -> width -> width -> 784, D is 784 -> width -> width -> 1, with leaky ReLUs between and the
rest as in mlp-batchnorm. Samples are short, and the least of them counts, since what else a machine
does only adds to it; NumPy's processor time stands beside it. Where there is no device, NumPy is
measured alone. Writes results/crossover.json, .md and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shlex
import sys
import time
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_contenders import find_device, ours
from harness import blas, time_steps
from report import RESULTS, positive, say

from tinygan.backend.team import thread_count
from tinygan.errors import BackendError
from tinygan.nn import Dense, Flatten, LeakyReLU, Reshape, Sequential, Tanh
from tinygan.presets import Preset, get_preset
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.figures import new_figure, save_figure
from tinygan.run.manifest import processor, versions

WIDTHS, BATCHES = [64, 128, 256, 512, 1024, 2048], [16, 64, 256, 1024]
QUICK_WIDTHS, QUICK_BATCHES = [64, 256, 1024], [16, 256]
SAMPLE = 0.03  # seconds, if a step does not take longer
NAMES = {"numpy": "NumPy", "cupy": "CuPy"}
COLOURS = {"numpy": "#1f77b4", "cupy": "#d95f02"}


# ---- measuring -----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.redraw:
        record = json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8"))
    else:
        record = measure(options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out.with_suffix(".json"), record)
    write_bytes(options.out.with_suffix(".md"), page(record).encode())
    draw(record, options.out.with_suffix(".png"))
    say(page(record))
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "crossover.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--width", type=positive, nargs="+")
    parser.add_argument("--batch", type=positive, nargs="+")
    parser.add_argument("--rounds", type=positive, default=15, help="samples of each point")
    parser.add_argument("--quick", action="store_true", help="a few points")
    parser.add_argument("--precision", choices=("float32", "tf32"), default="float32")
    parser.add_argument("--note", help="what else the machine did, for the record")
    parser.add_argument("--out", type=Path, default=RESULTS / "crossover")
    parser.add_argument("--redraw", action="store_true", help="from the .json, measure nothing")
    options = parser.parse_args(argv)
    options.width = sorted(options.width or (QUICK_WIDTHS if options.quick else WIDTHS))
    options.batch = sorted(options.batch or (QUICK_BATCHES if options.quick else BATCHES))
    words = sys.argv[1:] if argv is None else argv
    options.command = shlex.join(["python", "benchmarks/crossover.py", *words])
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every point on every backend that there is."""
    try:
        gpu = find_device()
    except BackendError as why:
        gpu = {"no device": str(why)}
    places = ["numpy"] if "no device" in gpu else ["numpy", "cupy"]
    points = []
    for batch in options.batch:
        for width in options.width:
            samples, busy = sample(options, width, batch, places)
            about = {"width": width, "batch": batch, "processor_ms": busy}
            points.append(about | {"ms": samples})
            least = {place: f"{min(ms):.3f} ms" for place, ms in samples.items()}
            say(f"width {width}, batch {batch}: {least}")
    return {
        "command": options.command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{processor()}, {os.cpu_count()} CPUs",
        "blas": "; ".join(blas()),
        "threads": thread_count(),
        "gpu": gpu,
        "precision": options.precision,
        "rounds": options.rounds,
        "load": f"{os.getloadavg()[2]:.1f} on average over the last 15 minutes",
        **({"note": options.note} if options.note else {}),
        "versions": versions(places[-1]),
        "points": points,
    }


def sample(
    options: argparse.Namespace, width: int, batch: int, places: list[str]
) -> tuple[dict[str, list[float]], float]:
    """Milliseconds per step of every sample, by backend, which take turns; and how long NumPy
    had a processor for a step, the least of the samples, with the step before each."""
    prepared = {}
    for place in places:
        precision = options.precision if place == "cupy" else "float32"
        device = "cuda" if place == "cupy" else "cpu"
        prepared[place] = ours(recipe(width), batch, 0, precision=precision, device=device)
    steps = {place: max(1, round(SAMPLE / time_steps(p, 1))) for place, p in prepared.items()}
    samples: dict[str, list[float]] = {place: [] for place in places}
    busy = math.inf
    for _ in range(options.rounds):
        for place in places:
            began = time.process_time()
            samples[place].append(round(1e3 * time_steps(prepared[place], steps[place]), 5))
            if place == "numpy":
                spent = (time.process_time() - began) / (1 + steps[place])
                busy = min(busy, round(1e3 * spent, 5))
    return samples, busy


def recipe(width: int) -> Preset:
    """mlp-batchnorm with two hidden layers of this width in each player, and no BatchNorm."""

    def generator(pixel_means: Any, labels: Any) -> Sequential:
        hidden = [Dense(100, width), LeakyReLU(0.2), Dense(width, width), LeakyReLU(0.2)]
        return Sequential(*hidden, Dense(width, 784), Tanh(), Reshape(28, 28, 1))

    def discriminator(labels: Any, packing: int = 1) -> Sequential:
        hidden = [Dense(784, width), LeakyReLU(0.2), Dense(width, width), LeakyReLU(0.2)]
        return Sequential(Flatten(), *hidden, Dense(width, 1))

    preset = get_preset("mlp-batchnorm")
    return dataclasses.replace(preset, generator=generator, discriminator=discriminator)


# ---- what comes of it ----------------------------------------------------------------------------


def lines(record: dict[str, Any], batch: int) -> dict[str, list[tuple[int, float]]]:
    """(width, least ms) for each backend, widths in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in sorted(record["points"], key=lambda p: p["width"]):
        for place, ms in point["ms"].items() if point["batch"] == batch else ():
            found.setdefault(place, []).append((point["width"], min(ms)))
    return found


def crossing(found: dict[str, list[tuple[int, float]]]) -> float | None:
    """The width from which on CuPy is faster; 0: it always is; None: it never is, or is not here.

    Between two widths the lines are straight on logarithmic axes.
    """
    if "cupy" not in found:
        return None
    gaps = [
        (width, math.log(ours / gpu))  # above 0: CuPy is faster
        for (width, ours), (_, gpu) in zip(found["numpy"], found["cupy"], strict=True)
    ]
    if all(gap > 0 for _, gap in gaps):
        return 0.0
    if gaps[-1][1] <= 0:
        return None
    (before, low), (after, high) = [pair for pair in pairwise(gaps) if pair[0][1] <= 0][-1]
    return before * (after / before) ** (-low / (high - low))


def in_words(found: dict[str, list[tuple[int, float]]]) -> str:
    if "cupy" not in found:
        return "CuPy: no device here"
    width = crossing(found)
    if width is None:
        return "NumPy is faster at the largest width"
    return f"CuPy is faster from width {width:.0f} on" if width else "CuPy is faster throughout"


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    about = {k: v for k, v in record.items() if k != "points"}
    about["gpu"] = ", ".join(f"{k}: {v}" for k, v in record["gpu"].items())
    about["versions"] = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    said = ["# From which width on a GPU pays", "", *[f"- {k}: {v}" for k, v in about.items()]]
    said += [
        "",
        "Milliseconds per training step: the least of the rounds (their median). Behind it,",
    ]
    said += ["how long NumPy had a processor for it: apart from what else the machine did.", ""]
    for batch in sorted({p["batch"] for p in record["points"]}):
        of_batch = [p for p in record["points"] if p["batch"] == batch]
        names = ["width", *(NAMES[place] for place in of_batch[0]["ms"]), "NumPy's processor"]
        said += [f"## Batch {batch}: {in_words(lines(record, batch))}", ""]
        said += [f"| {' | '.join(names)} |", "|---:" * len(names) + "|"]
        for point in of_batch:
            cells = [f"{min(ms):.3f} ({median(ms):.3f})" for ms in point["ms"].values()]
            cells = [str(point["width"]), *cells, f"{point['processor_ms']:.3f}"]
            said.append(f"| {' | '.join(cells)} |")
        said.append("")
    return "\n".join(said)


def draw(record: dict[str, Any], path: Path) -> None:
    """A panel for each batch size: both lines, and where they cross."""
    batches = sorted({p["batch"] for p in record["points"]})
    figure = new_figure(3.0 * len(batches) + 0.8, 3.4, layout="constrained")
    panels = figure.subplots(1, len(batches), sharex=True, sharey=True, squeeze=False)[0]
    for axes, batch in zip(panels, batches, strict=True):
        found = lines(record, batch)
        for place, points in found.items():
            axes.loglog(*zip(*points, strict=True), "o-", color=COLOURS[place], label=NAMES[place])
        if record["threads"] == 1:  # with more, it is no time that anybody waits for
            own = [(p["width"], p["processor_ms"]) for p in record["points"] if p["batch"] == batch]
            words = "NumPy, processor's time"
            axes.loglog(*zip(*own, strict=True), ":", color=COLOURS["numpy"], label=words)
        if width := crossing(found):
            axes.axvline(width, color="black", ls=(0, (5, 4)), lw=1.0)
        axes.set_title(f"batch {batch}\n{in_words(found)}", loc="left", fontsize=9)
        widths = [width for width, _ in found["numpy"]]
        axes.set_xticks(widths, [f"{width}" for width in widths], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("width of the hidden layers")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms per training step")
    panels[0].legend(frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
