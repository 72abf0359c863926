"""Time one training step of the preset dcgan-tf: tinygan beside PyTorch and beside plain NumPy.

    python benchmarks/dcgan_step.py --check
    python benchmarks/dcgan_step.py
    python benchmarks/dcgan_step.py --native --rounds 60

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

NAIVE, SHORTCUTS = "NumPy as in tutorials", "PyTorch, channels_last, our shortcuts"
RIVALS = ("default", "channels_last", "shortcuts", "naive")
# ours / PyTorch's best with OpenBLAS's own choice of kernel, by dropout; plain NumPy / ours
TARGETS = {"dropout": 0.9, "no dropout": 1.1, "memory": 0.6, "naive": 6.0}
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
        measure(options, regime, batch, dropout)
        for regime in options.regimes
        for batch in options.batch
        for dropout in (True, False)
    ]
    if any(not run["contenders"] for run in runs):
        print("error: a run has no contender that works", file=sys.stderr)
        return 1
    write(options, "One training step of dcgan-tf", TARGETS, runs, [show(run) for run in runs])
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__, "dcgan_step", batch=[64])
    parser.set_defaults(steps=2)
    return parsed(parser, argv)


def check(options: argparse.Namespace) -> int:
    """All from the same weights, noise, images and dropout masks: do they compute the same?"""
    import dcgan_contenders

    good = True
    for batch in options.batch:
        for rival in RIVALS:
            for dtype, steps in (("float64", 3), ("float32", 1)):
                for dropout in (True, False):
                    differences = dcgan_contenders.check(
                        rival, batch, options.seed, dtype, steps, dropout
                    )
                    words = f"batch {batch} {rival} {dtype}{'' if dropout else ', no dropout'}"
                    for what, difference in differences.items():
                        if dtype == "float32" and what.endswith("parameters"):
                            continue  # Adam's first step is a gradient's sign, rounding included
                        good &= verdict(f"{words} {what}", difference, TOLERANCES[dtype])
    return 0 if good else 1


def measure(options: argparse.Namespace, regime: str, batch: int, dropout: bool) -> dict[str, Any]:
    """One comparison, printed as a table."""
    common = {"batch": batch, "seed": options.seed, "dropout": dropout}
    contenders = [Contender("tinygan", "dcgan_contenders:ours", common, REGIMES[regime])]
    for name in ("PyTorch", "PyTorch, channels_last", SHORTCUTS):
        extra = {"threads": options.threads, "channels_last": name != "PyTorch"}
        extra["shortcuts"] = name == SHORTCUTS
        contenders.append(Contender(name, "dcgan_contenders:theirs", common | extra))
    contenders.append(Contender(NAIVE, "dcgan_contenders:naive", common, REGIMES[regime]))
    results = compare(contenders, options.threads, options.rounds, options.steps, say)
    run = {
        "title": f"batch {batch}, {'dropout' if dropout else 'no dropout'}, {regime}",
        "regime": regime,
        "batch": batch,
        "dropout": dropout,
        **summary(results, apart=(NAIVE, SHORTCUTS)),
    }
    print("\n" + show(run), flush=True)
    return run


def show(run: dict[str, Any]) -> str:
    target = TARGETS["dropout" if run["dropout"] else "no dropout"]
    return table(run, target, TARGETS["memory"], {NAIVE: TARGETS["naive"]})


if __name__ == "__main__":
    sys.exit(main())
