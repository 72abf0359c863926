"""Modes covered and sample quality of finished runs: means and standard errors over their seeds.

    python benchmarks/ring_modes.py runs                   # every run in a folder, or some of them:
    python benchmarks/ring_modes.py runs/ring-best-* --add  # beside what was measured before

Each run is measured as `python -m tinygan evaluate RUN --metric modes [--refresh N]` measures it:
2 500 samples of its newest checkpoint (or of --checkpoint STEP ...), PacGAN's definitions. Runs of
one preset with the same options are one row. The wall time is what run.json recorded; of a session
that went on behind the checkpoint it is the share of its steps. Writes
benchmarks/results/ring_modes.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from report import RESULTS

from tinygan.errors import OptionError
from tinygan.presets import get_preset
from tinygan.run.arguments import one_line_errors, whole
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.evaluate import evaluate_modes
from tinygan.run.manifest import processor
from tinygan.run.rebuild import load_generator

# Lin et al. 2018, table 1, 2D-ring: mean modes and good samples over ten runs, by packing.
PUBLISHED = {1: (6.3, 0.982), 2: (7.9, 0.956)}
# Options that do not make it another recipe.
APART = {"preset", "seed", "data", "data_dir", "backend", "tensorboard", "keep_last", "keep_every"}
APART |= {"log_every", "sample_every", "checkpoint_every", "steps", "epochs"}

Row = dict[str, Any]


def find_runs(given: list[Path]) -> list[Path]:
    """The run folders among `given` and directly inside them, in order."""
    runs = [
        run
        for path in given
        for run in ([path] if (path / "run.json").exists() else sorted(path.iterdir()))
        if (run / "run.json").exists()
    ]
    if not runs:
        raise OptionError("there is no run folder among these: one that holds a run.json")
    return runs


def measure(run: Path, checkpoint: int | None, seed: int, refresh: int) -> Row:
    """The figures of one run."""
    generator = load_generator(run, checkpoint, "numpy", refresh=refresh)
    result, manifest = evaluate_modes(generator, seed), generator.manifest
    backend, machine = manifest["backend"], manifest.get("machine") or {}
    return {
        "setting": setting(manifest) + refreshed(refresh),
        "packing": manifest["options"].get("packing", 1),
        "preset": manifest["preset"],
        "data": result["data"],
        "seed": manifest["seed"],
        "step": result["step"],
        "covered": result["covered"],
        "modes": len(result["each_mode"]),
        "quality": result["quality"],
        "reverse_kl": result["reverse_kl"],
        "each_mode": result["each_mode"],
        "seconds": round(seconds_until(result["step"], manifest["sessions"]), 1),
        "device": f"{backend.get('device')}, {machine.get('threads')} thread(s)",
        "command": manifest.get("command"),
        "git": manifest.get("git"),
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def seconds_until(step: int, sessions: list[dict[str, Any]]) -> float:
    """How long a run took to get there: of each session, the share of the steps that were kept.

    Steps of which no session tells (older versions forgot those of a killed process) are taken to
    have been as long as the others.
    """
    total, told, last = 0.0, 0, step
    for s in reversed(sessions):
        first, steps = s["first_step"], s["last_step"] - s["first_step"] + 1
        kept = max(0, min(s["last_step"], last) - first + 1)
        total, told = total + s["seconds"] * kept / max(1, steps), told + kept
        last = min(last, first - 1)  # what came before and lies behind it was made anew
    return total * step / max(1, told)


def setting(manifest: dict[str, Any]) -> str:
    """The preset, the data where it is not the preset's own, and every option that differs."""
    preset, options = get_preset(manifest["preset"]), manifest["options"]
    own = {name: getattr(preset, name, None) for name in options}
    own |= {"dtype": "float32", "precision": "float32", "conditional": None}
    words = [manifest["preset"]]
    if options["data"] != preset.data:
        words.append(f"on {manifest['data']['name']}")
    words += [
        f"{name.replace('_', ' ')} {value}"
        for name, value in sorted(options.items())
        if name not in APART and value != own[name]
    ]
    return ", ".join(words)


def refreshed(minibatches: int) -> str:
    """What a setting's name says of BatchNorm's statistics."""
    return f", statistics of {minibatches} new minibatches" if minibatches else ""


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
    """Mean, and its standard error: the sample's standard deviation / sqrt(n)."""
    if len(values) < 2:
        return values[0], None
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def summarise(rows: list[Row]) -> list[Row]:
    """One line for each setting and step, over its seeds."""
    lines = []
    for name, step in dict.fromkeys((row["setting"], row["step"]) for row in rows):
        same = [row for row in rows if (row["setting"], row["step"]) == (name, step)]
        divergences = [row["reverse_kl"] for row in same if row["reverse_kl"] is not None]
        lines.append(
            {
                "setting": name,
                "seeds": [row["seed"] for row in same],
                "modes": same[0]["modes"],
                "covered": mean_and_error([row["covered"] for row in same]),
                "fewest": min(row["covered"] for row in same),
                "quality": mean_and_error([row["quality"] for row in same]),
                "worst": min(row["quality"] for row in same),
                "reverse_kl": mean_and_error(divergences) if divergences else None,
                "step": step,
                "minutes": mean_and_error([row["seconds"] / 60 for row in same]),
                "published": published(same[0]),
            }
        )
    return lines


def published(row: Row) -> tuple[float, float] | None:
    if (row["preset"], row["data"]) != ("ring-published", "ring"):
        return None
    return PUBLISHED.get(row["packing"])


def pm(figure: tuple[float, float | None], digits: int, factor: float = 1.0) -> str:
    """Mean ± standard error in words."""
    mean, error = figure
    words = f"{factor * mean:.{digits}f}"
    return words if error is None else f"{words} ± {factor * error:.{digits}f}"


def page(record: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    words = [f"- {name}: {record[name]}" for name in ("command", "date", "device")]
    devices = "; ".join(sorted({row["device"] for row in record["runs"]}))
    lines = [
        "# Modes covered and quality of samples",
        "",
        *words,
        f"- trained on: {devices}",
        f"- {record['definitions']}",
        "",
        "| setting | seeds | modes | fewest | good samples, % | worst | reverse KL, nats | steps "
        "| minutes a seed | published |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for line in record["settings"]:
        known = line["published"]
        lines.append(
            f"| {line['setting']} | {len(line['seeds'])} "
            f"| {pm(line['covered'], 1)} of {line['modes']} | {line['fewest']} "
            f"| {pm(line['quality'], 1, 100)} | {100 * line['worst']:.1f} "
            f"| {pm(line['reverse_kl'], 3) if line['reverse_kl'] else 'none good'} "
            f"| {line['step']:,} | {pm(line['minutes'], 1)} "
            f"| {f'{known[0]} modes, {100 * known[1]:.1f} %' if known else ''} |"
        )
    lines += [
        "",
        "| setting | seed | step | modes | good samples, % | good samples by mode | seconds |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for row in record["runs"]:
        lines.append(
            f"| {row['setting']} | {row['seed']} | {row['step']:,} | {row['covered']} "
            f"| {100 * row['quality']:.1f} | {' '.join(map(str, row['each_mode']))} "
            f"| {row['seconds']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def kept(path: Path, rows: list[Row]) -> list[Row]:
    """Rows measured before, without those that `rows` measured anew."""
    if not path.exists():
        return []
    now = {_place(row) for row in rows}
    before = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return [row for row in before if _place(row) not in now]


def _place(row: Row) -> tuple[str, int, int]:
    return row["setting"], row["step"], row["seed"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    parser.add_argument(
        "--checkpoint", type=whole(0), metavar="STEP", nargs="+", help="not the newest"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="of the 2 500 samples (0)")
    parser.add_argument(
        "--refresh",
        type=whole(1),
        default=0,
        metavar="N",
        help="minibatches that BatchNorm's running statistics see first, as in evaluate",
    )
    parser.add_argument("--add", action="store_true", help="keep the rows of other runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "ring_modes")
    given = parser.parse_args(argv)
    rows = []
    places = [(run, step) for run in find_runs(given.runs) for step in given.checkpoint or [None]]
    for run, step in places:
        rows.append(measure(run, step, given.seed, given.refresh))
        row = rows[-1]
        print(
            f"{run}, step {row['step']:,}: {row['covered']} of {row['modes']} modes, "
            f"{100 * row['quality']:.1f} %, {row['seconds']:.0f} s",
            flush=True,
        )
    out_json = given.out.with_suffix(".json")
    if given.add:
        rows = kept(out_json, rows) + rows
    rows.sort(key=_place)
    record = {
        "command": shlex.join(["python", "benchmarks/ring_modes.py", *(argv or sys.argv[1:])]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{processor()}, {os.cpu_count()} CPUs",
        "definitions": "good: within 3 standard deviations of the nearest mode; a mode is covered "
        "if a good sample is its own; 2 500 samples; mean ± standard error over seeds",
        "settings": summarise(rows),
        "runs": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out_json, record)
    text = page(record)
    write_bytes(given.out.with_suffix(".md"), text.encode())
    print("\n" + text)


if __name__ == "__main__":
    with one_line_errors():
        main()
