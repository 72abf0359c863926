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
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Contender, compare
from report import REGIMES, parsed, parser_for, say, summary, table, verdict, write

from tinygan.run.manifest import processor

ADAMS: dict[str, dict[str, bool]] = {
    "PyTorch eager": {},
    "PyTorch eager, foreach Adam": {"foreach": True},
    "PyTorch eager, fused Adam": {"fused": True},
}
# No rivals: what a step takes at least that multiplies as fast as these libraries do.
FLOORS = (
    "its products alone, NumPy",
    "its products alone, PyTorch",
    "its products and Adam's bytes, NumPy",
)
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
    print(f"{processor()}, {os.cpu_count()} CPUs; {options.threads} threads each", flush=True)
    runs = [
        measure(options, regime, batch) for regime in options.regimes for batch in options.batch
    ]
    if any(not run["contenders"] for run in runs):
        print("error: a run has no contender that works", file=sys.stderr)
        return 1
    tables = [show(run) for run in runs]
    write(options, "One training step of mlp-batchnorm", TARGETS, runs, tables)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__, "mlp_step", batch=[64, 256])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parsed(parser, argv)


def check(options: argparse.Namespace) -> int:
    """Both from the same weights, noise and images: do they compute the same?"""
    import mlp_contenders

    good = True
    for batch in options.batch:
        for dtype, steps in (("float64", 3), ("float32", 1)):
            differences = mlp_contenders.check(batch, options.seed, dtype, steps)
            for what, difference in differences.items():
                if dtype == "float32" and what.endswith("parameters"):
                    continue  # Adam's first step is the sign of a gradient, rounding included
                good &= verdict(f"batch {batch} {dtype} {what}", difference, TOLERANCES[dtype])
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
    alone = {"theirs": True, "threads": options.threads}
    contenders += [
        Contender(FLOORS[0], "mlp_contenders:products_alone", common, REGIMES[regime]),
        Contender(FLOORS[1], "mlp_contenders:products_alone", common | alone),
        Contender(
            FLOORS[2], "mlp_contenders:products_alone", common | {"moved": True}, REGIMES[regime]
        ),
    ]
    results = compare(contenders, options.threads, options.rounds, options.steps, say)
    title = f"batch {batch}, {regime}"
    run = {"title": title, "regime": regime, "batch": batch, **summary(results, FLOORS)}
    print("\n" + show(run), flush=True)
    return run


def show(run: dict[str, Any]) -> str:
    return table(run, TARGETS[run["regime"]], TARGETS["memory"])


if __name__ == "__main__":
    sys.exit(main())
