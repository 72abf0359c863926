"""How close the sine-curve GANs come to their target, and how close the game to its equilibrium.

    python benchmarks/sine_seeds.py                  # both presets, five seeds each
    python benchmarks/sine_seeds.py --redraw         # the picture and the tables anew

Every 500 steps, outside the clock, 10 000 curves of G and as many real ones are looked at:
- distance: the mean absolute difference to the nearest member of the true family;
- amplitude: mean and standard deviation of that member's (data: 1.5 and 0.289, or 1 and 0);
- noise: the standard deviation of what the nearest members leave over (data: 0.02);
- D's accuracy and its score, mean log D(x) + log(1 - D(G(z))).
From the middle of the training on, the mean of G's weights is kept and measured at the end.
Writes results/sine_seeds.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, positive

from tinygan import Network, Noise, get_backend
from tinygan.data.curves import NOISE, amplitude_range, curves
from tinygan.gan import ORDERS, Game
from tinygan.metrics.curves import FLOOR, nearest_sines, noise_of
from tinygan.presets import SINES, Preset
from tinygan.run import make_game
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.manifest import processor

EVERY, LOOK = 500, 10_000
EARLY = (500, 1000)  # the steps of which the source shows pictures
FIGURES = {
    "distance": "distance",
    "amplitude": "amplitude",
    "amplitude_std": "its std",
    "noise": "noise",
    "accuracy": "D accuracy",
    "score": "D score",
    "seconds": "seconds",
    "processor_seconds": "of a processor",
}
PANELS = {
    "distance": "distance to the family",
    "noise": "noise of the curves",
    "amplitude_std": "std of amplitude",
    "accuracy": "D accuracy",
    "score": "D score",
}
LOGARITHMIC = {"distance": (0.01, 0.03, 0.1, 0.3), "noise": (0.003, 0.01, 0.03, 0.1, 0.3)}
LOG_4 = float(np.log(4.0))


def clocks() -> np.ndarray:
    """Seconds on the wall, and seconds that this process had a processor."""
    return np.array([time.perf_counter(), time.process_time()])


def look_at(samples: np.ndarray, family: str) -> dict[str, float]:
    """The figures of curves (N, 15) alone."""
    fit = nearest_sines(samples, family)
    return {
        "distance": float(fit.distance.mean()),
        "amplitude": float(fit.amplitude.mean()),
        "amplitude_std": float(fit.amplitude.std()),
        "noise": noise_of(samples, family),
    }


def judged(D: Network, real: np.ndarray, fakes: np.ndarray) -> dict[str, float]:
    """D's accuracy and score, in float64 from its logits."""
    look = D.cache("look", train=False)
    of_real = np.array(D.forward(real, look), np.float64)
    of_fakes = np.array(D.forward(fakes, look), np.float64)
    score = -np.logaddexp(0.0, -of_real).mean() - np.logaddexp(0.0, of_fakes).mean()
    accuracy = 0.5 * float((of_real > 0).mean() + (of_fakes <= 0).mean())
    return {"accuracy": accuracy, "score": float(score)}


def game_of(recipe: Preset, seed: int) -> Game:
    """The game as the example has it, on NumPy."""
    noise = Noise(seed, get_backend("numpy"))
    data = curves(family=recipe.data == "sine-family")
    G_body, D_body = recipe.generator(None, recipe.labels), recipe.make_discriminator()
    G = Network(G_body, (recipe.latent,), noise.backend, "G", noise)
    D = Network(D_body, data.example_shape, noise.backend, "D", noise)
    return make_game(recipe, G, D, data, noise)


def train(recipe: Preset, seed: int, steps: int) -> dict[str, Any]:
    """One training as the example does it, and what it comes to."""
    game, play = game_of(recipe, seed), ORDERS[recipe.order]
    G, D, noise = game.G, game.D, game.noise
    G_optimiser, D_optimiser = (recipe.optimiser(net, recipe.lr, 1) for net in (G, D))

    z = recipe.draw_latent(noise.at(step=0), "benchmark", LOOK)
    real = curves(LOOK, seed=1, family=recipe.data == "sine-family").points
    look, points = G.cache("look", train=False), []
    mean, count = np.zeros(G.parameters.shape), 0
    spent, began = np.zeros(2), clocks()
    for noise.step in range(1, steps + 1):
        play(game, D_optimiser.step, G_optimiser.step, recipe.k)
        if noise.step % EVERY and noise.step != steps:
            continue
        spent += clocks() - began
        fakes = G.forward(z, look)
        point = {**look_at(fakes, recipe.data), **judged(D, real, fakes)}
        seconds, of_processor = np.round(spent, 2).tolist()
        clock = {"seconds": seconds, "processor_seconds": of_processor}
        points.append({"step": noise.step, **clock, **rounded(point)})
        if 2 * noise.step > steps:
            mean, count = mean + G.parameters, count + 1
        began = clocks()
    G.parameters[...] = mean / count
    fakes = G.forward(z, look)
    averaged = rounded(look_at(fakes, recipe.data))
    return {"preset": recipe.name, "seed": seed, "points": points, "averaged": averaged}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """As many digits as one would ever look at."""
    return {name: round(value, 6) for name, value in figures.items()}


# ---- tables ------------------------------------------------------------------------------------


def table(preset: str, runs: list[dict[str, Any]], real: dict[str, float]) -> str:
    """One preset in Markdown: early, at the end of the training, and the mean of the weights."""
    low, high = amplitude_range(SINES[preset].data)
    shown = {
        name: words
        for name, words in FIGURES.items()
        if low < high or not name.startswith("amplitude")
    }
    last = runs[0]["points"][-1]["step"]
    rows = {
        f"step {step:,}": [
            point for run in runs for point in run["points"] if point["step"] == step
        ]
        for step in (*EARLY, last)
    }
    rows[f"mean over steps {last // 2:,} to {last:,}"] = [second_half(run) for run in runs]
    rows["mean of G's weights over those"] = [run["averaged"] for run in runs]
    rows["real curves; equilibrium"] = [real | {"accuracy": 0.5, "score": -LOG_4}]
    lines = [
        f"## {preset}",
        "",
        f"| | {' | '.join(shown.values())} |",
        "|---|" + "---:|" * len(shown),
    ]
    for words, points in rows.items():
        cells = [cell([p[name] for p in points if name in p]) for name in shown]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def second_half(run: dict[str, Any]) -> dict[str, float]:
    """The mean over the points of the second half of a training."""
    half = [point for point in run["points"] if 2 * point["step"] > run["points"][-1]["step"]]
    return {
        name: float(np.mean([p[name] for p in half])) for name in FIGURES if "seconds" not in name
    }


def cell(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds, as far as there are several."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    places = 1 if np.mean(values) > 5 else 4  # seconds
    return f"{np.mean(values):.{places}f} ± {np.std(values, ddof=1):.{places}f}"


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    about = {name: record[name] for name in ("command", "date", "device", "threads", "seeds")}
    lines = ["# Sine-curve GANs over seeds", "", *[f"- {k}: {v}" for k, v in about.items()]]
    lines += [
        "",
        "Mean ± standard deviation over the seeds. Distance: mean absolute difference to the "
        "nearest member of the true family; that of real curves to their own sine is 0.02 √(2/π) "
        f"= {FLOOR:.4f}. Seconds: of training, without looking at it, on the wall "
        "and, apart from what else the machine did, of a processor.",
        "",
    ]
    tables = [
        table(preset, [r for r in record["runs"] if r["preset"] == preset], record["real"][preset])
        for preset in record["real"]
    ]
    return "\n".join(lines) + "\n" + "\n".join(tables)


# ---- picture -----------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> bytes:
    """Distance, amplitude's spread, noise and D's accuracy over steps, a line for each seed."""
    import io

    from matplotlib.figure import Figure

    presets = list(record["real"])
    figure = Figure(figsize=(9.6, 8.4), dpi=100, layout="constrained")
    panels = figure.subplots(len(PANELS), len(presets), sharex=True, sharey="row", squeeze=False)
    for column, preset in zip(panels.T, presets, strict=True):
        runs = [run for run in record["runs"] if run["preset"] == preset]
        column[0].set_title(preset, loc="left", fontsize=12, color="#555555")
        column[-1].set_xlabel("step")
        column[-1].xaxis.set_major_formatter("{x:,.0f}")
        for axes, (name, words) in zip(column, PANELS.items(), strict=True):
            for run in runs:
                steps = [point["step"] for point in run["points"]]
                axes.plot(steps, [point[name] for point in run["points"]], lw=1.0, alpha=0.8)
            level = {**record["real"][preset], "accuracy": 0.5, "score": -LOG_4}[name]
            axes.axhline(level, color="black", ls=(0, (5, 4)), lw=1.0)
            axes.spines[["top", "right"]].set_visible(False)
            if preset == presets[0]:
                axes.set_ylabel(words)
    for name, axes in zip(PANELS, panels[:, 0], strict=True):
        if name in LOGARITHMIC:
            axes.set_yscale("log")
            axes.set_yticks(LOGARITHMIC[name], [f"{value:g}" for value in LOGARITHMIC[name]])
            axes.minorticks_off()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=positive, default=60_000)
    parser.add_argument("--seeds", type=positive, default=5)
    parser.add_argument("--preset", choices=tuple(SINES), nargs="+", default=list(SINES))
    parser.add_argument("--out", type=Path, default=RESULTS / "sine_seeds")
    parser.add_argument("--redraw", action="store_true", help="from the .json, train nothing")
    given = parser.parse_args()
    if given.redraw:
        record = json.loads(given.out.with_suffix(".json").read_text(encoding="utf-8"))
    else:
        record = measure(given)
        write_json(given.out.with_suffix(".json"), record)
    write_bytes(given.out.with_suffix(".md"), page(record).encode())
    write_bytes(given.out.with_suffix(".png"), draw(record))
    print(page(record))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Train every preset with every seed."""
    runs, real = [], {}
    for name in given.preset:
        recipe = SINES[name]
        truth = curves(LOOK, seed=1, family=recipe.data == "sine-family").points
        real[name] = look_at(truth, recipe.data)
        for seed in range(given.seeds):
            runs.append(train(recipe, seed, given.steps))
            last = runs[-1]["points"][-1]
            print(name, seed, {k: round(v, 4) for k, v in last.items()}, flush=True)
    return {
        "command": shlex.join(["python", "benchmarks/sine_seeds.py", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{processor()}, {os.cpu_count()} CPUs",
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "as many as there are"),
        "seeds": given.seeds,
        "floor": FLOOR,
        "noise_of_the_data": NOISE,
        "amplitudes": {name: amplitude_range(SINES[name].data) for name in given.preset},
        "real": real,
        "runs": runs,
    }


if __name__ == "__main__":
    main()
