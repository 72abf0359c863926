"""Time one training step of the preset mlp-batchnorm: tinygan beside PyTorch.

    python benchmarks/mlp_step.py --check
    python benchmarks/mlp_step.py
    python benchmarks/mlp_step.py --native --batch 256 --rounds 60

See benchmarks/README.md for what is measured, and how.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from harness import Contender, Result, compare, cpu_model  # noqa: E402

REGIMES = {"native": {}, "pinned": {"OPENBLAS_CORETYPE": "Haswell"}}
ADAMS: dict[str, dict[str, bool]] = {
    "PyTorch eager": {},
    "PyTorch eager, foreach Adam": {"foreach": True},
    "PyTorch eager, fused Adam": {"fused": True},
}
TARGETS = {"native": 0.75, "pinned": 1.0, "memory": 0.3}
# float64 shows that it is the same step; float32 that rounding is all that parts them. G's gradient
# there has passed a D whose first Adam step is the sign of its gradient, rounding included.
TOLERANCES = {"float64": 1e-9, "float32": 1e-3}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if importlib.util.find_spec("torch") is None:
        print("error: this benchmark needs PyTorch: pip install torch", file=sys.stderr)
        return 2
    if options.check:
        return check(options)
    print(f"{cpu_model()}, {os.cpu_count()} CPUs; {options.threads} threads each", flush=True)
    runs = [
        measure(options, regime, batch) for regime in options.regimes for batch in options.batch
    ]
    if any(not run["contenders"] for run in runs):
        print("error: a run has no contender that works", file=sys.stderr)
        return 1
    write(options, runs)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=positive, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=positive, default=30, help="samples of each contender")
    parser.add_argument("--steps", type=positive, default=5, help="steps in a sample")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--native", action="store_true", help="OpenBLAS's own choice of kernel only")
    which.add_argument("--pinned", action="store_true", help="OPENBLAS_CORETYPE=Haswell only")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "mlp_step")
    parser.add_argument("--check", action="store_true", help="compare the two steps, time nothing")
    options = parser.parse_args(argv)
    chosen = [regime for regime in REGIMES if getattr(options, regime)]
    options.regimes = chosen or list(REGIMES)
    options.command = shlex.join(["python", "benchmarks/mlp_step.py", *(argv or sys.argv[1:])])
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def check(options: argparse.Namespace) -> int:
    """Both from the same weights, noise and images: do they compute the same?"""
    import mlp_contenders

    good = True
    for batch in options.batch:
        for dtype, steps in (("float64", 3), ("float32", 1)):
            limit = TOLERANCES[dtype]
            differences = mlp_contenders.check(batch, options.seed, dtype, steps)
            for what, difference in differences.items():
                if dtype == "float32" and what.endswith("parameters"):
                    continue  # Adam's first step is the sign of a gradient, rounding included
                # not "> limit": a NaN must not pass
                verdict = "ok" if difference <= limit else f"differs (limit {limit:g})"
                good &= difference <= limit
                print(f"batch {batch} {dtype} {what}: {difference:.1e} {verdict}")
    return 0 if good else 1


def measure(options: argparse.Namespace, regime: str, batch: int) -> dict[str, Any]:
    """One comparison, printed as a table."""
    common = {"batch": batch, "seed": options.seed}
    contenders = [Contender("tinygan", "mlp_contenders:ours", common, REGIMES[regime])]
    forms = {name: (adam, False) for name, adam in ADAMS.items()}
    if not options.no_compile:
        forms["torch.compile, fused Adam"] = ({"fused": True}, True)
    for name, (adam, compiled) in forms.items():
        extra = {"threads": options.threads, "adam": adam, "compiled": compiled}
        contenders.append(Contender(name, "mlp_contenders:theirs", common | extra))
    results = compare(contenders, options.threads, options.rounds, options.steps, say)
    run = {"regime": regime, "batch": batch, **summary(results)}
    print("\n" + table(run), flush=True)
    return run


def say(line: str) -> None:
    print(line, flush=True)


def summary(results: list[Result]) -> dict[str, Any]:
    """Figures of one comparison; ratios are ours / the best of theirs."""
    rows = {
        r.name: {
            "median_ms": 1e3 * r.median,
            "minimum_ms": 1e3 * r.minimum,
            "samples_ms": [round(1e3 * s, 4) for s in r.samples],
            **r.about,
        }
        for r in results
    }
    theirs = [r for r in results if r.name != "tinygan"]
    if not theirs or len(theirs) == len(results):
        return {"contenders": rows}
    ours = next(r for r in results if r.name == "tinygan")
    best = min(theirs, key=lambda r: r.median)
    return {
        "contenders": rows,
        "best": best.name,
        "ratio_of_medians": ours.median / best.median,
        "ratio_of_minima": ours.minimum / min(r.minimum for r in theirs),
        # round by round: what slows the whole machine for a while falls out
        "median_of_ratios": median(a / b for a, b in zip(ours.samples, best.samples, strict=True)),
        "memory_ratio": ours.about["peak_rss"] / best.about["peak_rss"],
    }


def table(run: dict[str, Any]) -> str:
    """One comparison in Markdown."""
    lines = [
        f"### batch {run['batch']}, {run['regime']}",
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
            f"(target {TARGETS[run['regime']]:.2f}), minima {run['ratio_of_minima']:.2f}, "
            f"round by round {run['median_of_ratios']:.2f}; "
            f"peak memory **{run['memory_ratio']:.2f}** (target {TARGETS['memory']:.1f}).",
        ]
    return "\n".join(lines) + "\n"


def write(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """The figures as JSON, the tables as Markdown; each file whole or not at all."""
    from tinygan.run.atomic import write_bytes, write_json

    versions: dict[str, str] = {}
    for run in runs:
        for row in run["contenders"].values():
            versions |= row["versions"]
    record: dict[str, Any] = {
        "command": options.command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": f"{cpu_model()}, {os.cpu_count()} CPUs",
        "threads": options.threads,
        "rounds": options.rounds,
        "steps_per_sample": options.steps,
        "seed": options.seed,
        "versions": versions,
        "targets": TARGETS,
    }
    words = [f"- {name}: {value}" for name, value in record.items() if name != "targets"]
    words[words.index(f"- versions: {versions}")] = "- versions: " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    page = "\n".join(["# One training step of mlp-batchnorm", "", *words, ""])
    page += "".join("\n" + table(run) for run in runs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), record | {"runs": runs})
    write_bytes(options.out.with_suffix(".md"), page.encode())
    print(f"\nwrote {options.out.name}.json and {options.out.name}.md")


if __name__ == "__main__":
    sys.exit(main())
