"""What the two objectives do to a G that is behind: the sine curve, D with a head start.

    python benchmarks/sine_saturation.py

D alone learns for some steps, then both play, simultaneously. G is moved by Adam, as the preset
has it, or by plain gradient descent; D always by Adam. Writes results/sine_saturation.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, positive
from sine_seeds import game_of

from tinygan.gan import ORDERS
from tinygan.metrics.curves import nearest_sines
from tinygan.optim import SGD
from tinygan.presets import SINES
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.manifest import processor

HEAD_STARTS = (0, 1000, 2000)
OBJECTIVES = ("minimax", "non-saturating")
SGD_RATE = 0.01
STEPS, SHOWN = 3000, (1, 30, 100, 200, 1000, 3000)  # after the head start


def play(head_start: int, objective: str, optimiser: str, seed: int) -> list[dict[str, float]]:
    """Readings at the steps SHOWN."""
    recipe = dataclasses.replace(SINES["sine-curve"], objective=objective)
    game = game_of(recipe, seed)
    G, D, noise = game.G, game.D, game.noise
    ascend_D = recipe.optimiser(D, recipe.lr, 1).step
    mover = SGD(G, SGD_RATE) if optimiser == "SGD" else recipe.optimiser(G, recipe.lr, 1)
    z = recipe.draw_latent(noise.at(step=0), "benchmark", 2000)
    look, readings = G.cache("look", train=False), []
    for noise.step in range(1, head_start + STEPS + 1):
        behind = noise.step <= head_start
        ORDERS["simultaneous"](game, ascend_D, (lambda: None) if behind else mover.step)
        step = noise.step - head_start
        if step in SHOWN:
            distance = nearest_sines(G.forward(z, look), "sine-curve").distance.mean()
            readings.append(
                {
                    "step": step,
                    "gradient": float(np.linalg.norm(G.gradients)),
                    "d_fake": game.metrics()["d_fake"],
                    "distance": float(distance),
                }
            )
    return readings


def page(record: dict[str, Any]) -> str:
    """The figures in Markdown, means over the seeds."""
    about = {name: record[name] for name in ("command", "date", "device", "seeds")}
    lines = ["# Saturation on the sine curve", "", *[f"- {k}: {v}" for k, v in about.items()], ""]
    lines += [
        f"G by Adam (1e-4) or SGD ({SGD_RATE}), D by Adam (1e-4). Means over the seeds; distance: "
        "mean absolute difference to the sine, ± standard deviation over the seeds.",
        "",
        "| D's head start | G moved by | objective | D(G(z)) at first | G's gradient at first "
        f"| distance after {STEPS:,} steps |",
        "|---:|---|---|---:|---:|---:|",
    ]
    for run in record["runs"]:
        first = [readings[0] for readings in run["readings"]]
        last = [readings[-1]["distance"] for readings in run["readings"]]
        lines.append(
            f"| {run['head_start']:,} | {run['optimiser']} | {run['objective']} "
            f"| {np.mean([r['d_fake'] for r in first]):.3f} "
            f"| {np.mean([r['gradient'] for r in first]):.2f} "
            f"| {np.mean(last):.3f} ± {np.std(last, ddof=1):.3f} |"
        )
    worst = [r for r in record["runs"] if (r["head_start"], r["optimiser"]) == (2000, "SGD")]
    lines += ["", "Seed 0, head start 2,000, SGD:", ""]
    lines += [
        "| step | " + " | ".join(f"{r['objective']}: D(G(z)), gradient, distance" for r in worst)
    ]
    lines[-1] += " |"
    lines.append("|---:|" + "---|" * len(worst))
    for readings in zip(*(r["readings"][0] for r in worst), strict=True):
        cells = [f"{r['d_fake']:.3f}, {r['gradient']:.2g}, {r['distance']:.2f}" for r in readings]
        lines.append(f"| {readings[0]['step']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=positive, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "sine_saturation")
    given = parser.parse_args()
    runs = []
    for head_start in HEAD_STARTS:
        for optimiser in ("Adam", "SGD"):
            for objective in OBJECTIVES:
                about = {"head_start": head_start, "optimiser": optimiser, "objective": objective}
                readings = [play(**about, seed=seed) for seed in range(given.seeds)]
                runs.append({**about, "readings": readings})
                print(about, [round(r[-1]["distance"], 3) for r in readings], flush=True)
    record = {
        "command": shlex.join(["python", "benchmarks/sine_saturation.py", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{processor()}, {os.cpu_count()} CPUs",
        "seeds": given.seeds,
        "runs": runs,
    }
    write_json(given.out.with_suffix(".json"), record)
    write_bytes(given.out.with_suffix(".md"), page(record).encode())
    print(page(record))


if __name__ == "__main__":
    main()
