"""What the step benchmarks share: regimes, common options, ratios, tables, files."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from harness import Result

from tinygan.run.manifest import processor

RESULTS = Path(__file__).resolve().parent / "results"
REGIMES = {"native": {}, "pinned": {"OPENBLAS_CORETYPE": "Haswell"}}
OURS = "tinygan"


def parser_for(
    text: str | None, name: str, batch: list[int] | None = None, on_cpu: bool = True
) -> argparse.ArgumentParser:
    """A parser with the options that every step benchmark has, and those `on_cpu` alone."""
    parser = argparse.ArgumentParser(
        f"{name}.py",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=positive, nargs="+", default=batch)
    parser.add_argument("--rounds", type=positive, default=30, help="samples of each contender")
    parser.add_argument("--steps", type=positive, default=5, help="steps in a sample")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / name)
    if on_cpu:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--native", action="store_true", help="OpenBLAS's choice of kernel only")
        which.add_argument("--pinned", action="store_true", help="OPENBLAS_CORETYPE=Haswell only")
        parser.add_argument("--check", action="store_true", help="compare the steps, time nothing")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, the regimes they choose, and the command in words."""
    options = parser.parse_args(argv)
    chosen = [regime for regime in REGIMES if getattr(options, regime, False)]
    options.regimes = chosen or list(REGIMES)
    options.command = shlex.join(["python", f"benchmarks/{parser.prog}", *(argv or sys.argv[1:])])
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def say(line: str) -> None:
    print(line, flush=True)


def summary(results: list[Result], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """Figures of one comparison; ratios are ours / the best of theirs.

    Contenders `apart` are no rivals: for each there is its own ratio, its median / ours.
    """
    rows = {
        r.name: {
            "median_ms": 1e3 * r.median,
            "minimum_ms": 1e3 * r.minimum,
            "samples_ms": [round(1e3 * s, 4) for s in r.samples],
            **r.about,
        }
        for r in results
    }
    ours = next((r for r in results if r.name == OURS), None)
    theirs = [r for r in results if r.name != OURS and r.name not in apart]
    if ours is None or not theirs:
        return {"contenders": rows}
    against = ratios(ours, theirs)
    return {
        "contenders": rows,
        **against,
        "memory_ratio": ours.about["peak_rss"] / rows[against["best"]]["peak_rss"],
        "apart": {r.name: r.median / ours.median for r in results if r.name in apart},
    }


def ratios(ours: Result, theirs: list[Result]) -> dict[str, Any]:
    """Ours / the best of theirs, and which that is."""
    best = min(theirs, key=lambda r: r.median)
    return {
        "best": best.name,
        "ratio_of_medians": ours.median / best.median,
        "ratio_of_minima": ours.minimum / min(r.minimum for r in theirs),
        # round by round: what slows the whole machine for a while falls out
        "median_of_ratios": median(a / b for a, b in zip(ours.samples, best.samples, strict=True)),
    }


def table(
    run: dict[str, Any], target: float, memory: float, apart: Mapping[str, float] | None = None
) -> str:
    """One comparison in Markdown, headed run["title"], beside the targets of its ratios.

    `apart`: how many times our median a contender apart should take, for those with a target.
    """
    lines = [
        f"### {run['title']}",
        "",
        "| | median ms | minimum ms | peak MB | after imports MB | BLAS |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, row in run["contenders"].items():
        blas = "; ".join(row["blas"])
        lines.append(
            f"| {name} | {row['median_ms']:.2f} | {row['minimum_ms']:.2f} "
            f"| {row['peak_rss'] / 1e6:.0f} | {row['rss_after_imports'] / 1e6:.0f} | {blas} |"
        )
    if "best" in run:
        lines += [
            "",
            f"tinygan / PyTorch's best ({run['best']}): medians **{run['ratio_of_medians']:.2f}** "
            f"(target {target:.2f}), minima {run['ratio_of_minima']:.2f}, "
            f"round by round {run['median_of_ratios']:.2f}; "
            f"peak memory **{run['memory_ratio']:.2f}** (target {memory:.1f}).",
        ]
        aims, rows = apart or {}, run["contenders"]
        best = rows[run["best"]]["median_ms"]
        lines += [
            f"{name}: **{ratio:.1f}** times our median (target {aims[name]:.1f})."
            if name in aims
            else f"{name}: **{ratio:.2f}** times our median, "
            f"{rows[name]['median_ms'] / best:.2f} times PyTorch's best."
            for name, ratio in run["apart"].items()
        ]
    return "\n".join(lines) + "\n"


def write(
    options: argparse.Namespace,
    title: str,
    targets: dict[str, float],
    runs: list[dict[str, Any]],
    tables: list[str],
    about: dict[str, Any] | None = None,
) -> None:
    """The figures as JSON, the tables as Markdown; each file whole or not at all.

    `about`: more to record, or other words for what is.
    """
    from tinygan.run.atomic import write_bytes, write_json

    about = dict(about or {})
    versions: dict[str, str] = about.pop("versions", {})
    for run in runs:
        for row in run.get("contenders", {}).values():
            versions |= row["versions"]
    record: dict[str, Any] = {
        "command": options.command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{processor()}, {os.cpu_count()} CPUs",
        "threads": options.threads,
        "rounds": options.rounds,
        "steps_per_sample": options.steps,
        "seed": options.seed,
        **about,
        "versions": versions,
        "targets": targets,
    }
    words = [f"- {name}: {value}" for name, value in record.items() if name != "targets"]
    words[words.index(f"- versions: {versions}")] = "- versions: " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    page = "\n".join([f"# {title}", "", *words, ""]) + "".join("\n" + t for t in tables)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), record | {"runs": runs})
    write_bytes(options.out.with_suffix(".md"), page.encode())
    print(f"\nwrote {options.out.name}.json and {options.out.name}.md")


def verdict(name: str, difference: float, limit: float) -> bool:
    """Print one line of a check; whether it is good."""
    good = difference <= limit  # not "> limit": a NaN must not pass
    print(f"{name}: {difference:.1e} {'ok' if good else f'differs (limit {limit:g})'}")
    return good
