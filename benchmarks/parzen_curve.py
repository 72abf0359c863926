"""The Parzen log-likelihood of a run over its epochs, with and without averaging G's weights.

    python benchmarks/parzen_curve.py runs/goodfellow2014 --every 10000 --average-from 57000

Every point is measured by the protocol of `python -m tinygan evaluate` on the test set. With
`--split validation` the points are measured on the validation images, and only the best of each
curve on the test set: a choice that the test set has no part in. Writes parzen_curve.json and .png
(parzen_validation.json and .png) into --out (default: the run folder).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from tinygan.run.arguments import one_line_errors, whole
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.checkpoint import list_checkpoints
from tinygan.run.evaluate import evaluate_parzen
from tinygan.run.folder import RunFolder
from tinygan.run.rebuild import load_generator

PUBLISHED = (225.0, 2.0)  # Goodfellow et al. 2014, Table 1
TRAINING_IMAGES = 241.2  # what 10 000 training images score by the same protocol


def measure(
    run: Path, every: int, average_from: int | None, split: str
) -> dict[str, list[dict[str, Any]]]:
    """Results for single checkpoints, and for the mean from `average_from` to each later one."""
    steps = [c.step for c in list_checkpoints(RunFolder(run).checkpoints) if c.step]
    results: dict[str, list[dict[str, Any]]] = {"single": [], "mean": []}
    for step in [s for s in steps if s % every == 0 or s == steps[-1]]:
        results["single"].append(evaluate_parzen(load_generator(run, step), split))
        if average_from is not None and step > average_from:
            G = load_generator(run, step, average_from=average_from)
            results["mean"].append(evaluate_parzen(G, split))
        for name, points in results.items():
            if points and points[-1]["step"] == step:
                print(f"step {step}, {name}: {points[-1]['mean']:.1f}", flush=True)
    return results


def test_of_the_best(
    run: Path, results: dict[str, list[dict[str, Any]]], average_from: int | None
) -> dict[str, dict[str, Any]]:
    """For each curve the test score of the point with the best validation score."""
    chosen = {}
    for name, points in results.items():
        if points:
            best = max(points, key=lambda point: point["mean"])
            start = average_from if name == "mean" else None
            chosen[name] = evaluate_parzen(load_generator(run, best["step"], average_from=start))
            print(
                f"{name}: best on validation at step {best['step']} ({best['mean']:.1f}), "
                f"test {chosen[name]['mean']:.1f} ± {chosen[name]['standard_error']:.1f}"
            )
    return chosen


def draw(results: dict[str, list[dict[str, Any]]], steps_per_epoch: float, split: str) -> bytes:
    """The curve as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    looks = {
        "single": ("#1f5fa8", "G of one checkpoint"),
        "mean": ("#c8502d", "mean of G's weights"),
    }
    for name, (colour, label) in looks.items():
        epochs = [point["step"] / steps_per_epoch for point in results[name]]
        means = [point["mean"] for point in results[name]]
        errors = [point["standard_error"] for point in results[name]]
        if means:
            axes.errorbar(epochs, means, errors, color=colour, marker="o", ms=3, label=label)
    low, high = PUBLISHED[0] - PUBLISHED[1], sum(PUBLISHED)
    axes.axhspan(low, high, color="#555555", alpha=0.25, lw=0, label="published: 225 ± 2 (test)")
    axes.axhline(TRAINING_IMAGES, color="#555555", ls="--", lw=0.9, label="10 000 training images")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"Parzen log-likelihood, {split} set (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=whole(1), default=10_000, help="steps between points")
    parser.add_argument("--average-from", type=whole(0), help="first step of the mean of weights")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--out", type=Path, help="a folder (default: the run folder)")
    parser.add_argument("--redraw", action="store_true", help="draw what is measured anew")
    given = parser.parse_args()
    out = given.out or given.run
    out.mkdir(parents=True, exist_ok=True)
    name = {"test": "parzen_curve", "validation": "parzen_validation"}[given.split]
    manifest = RunFolder(given.run).read_manifest()
    steps_per_epoch = manifest["data"]["images"] // manifest["options"]["batch_size"]
    if given.redraw:
        report = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        results, given.split = report["results"], report.get("split", "test")
    else:
        results = measure(given.run, given.every, given.average_from, given.split)
        chosen = {}
        if given.split == "validation":
            chosen = test_of_the_best(given.run, results, given.average_from)
        report = {
            "command": shlex.join(["python", "benchmarks/parzen_curve.py", *sys.argv[1:]]),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "preset": manifest["preset"],
            "seed": manifest["seed"],
            "machine": manifest["machine"],
            "split": given.split,
            "results": results,
            "test_of_the_best": chosen,
        }
        write_json(out / f"{name}.json", report)
    write_bytes(out / f"{name}.png", draw(results, steps_per_epoch, given.split))


if __name__ == "__main__":
    with one_line_errors():
        main()
