"""Time one training step on a CUDA device: tinygan as a CUDA graph, and PyTorch in three forms.

    python benchmarks/gpu_step.py
    python benchmarks/gpu_step.py --model mlp-batchnorm --batch 64 --rounds 60
    python benchmarks/gpu_step.py --precision tf32 --out results/gpu_step_tf32

See benchmarks/README.md for what is measured, and how.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_contenders import add_gpu_options, find_device
from harness import Contender, Result, compare
from report import OURS, parsed, parser_for, ratios, say, summary, write

from tinygan.errors import BackendError

EAGER = "tinygan, not captured"
KINDS = {"eager": "PyTorch eager", "compile": "PyTorch reduce-overhead", "graph": "PyTorch graph"}
BATCHES = {"mlp-batchnorm": [64, 256], "dcgan-tf": [64]}
# The best of each kind / our median: at least so much.
TARGETS = {
    "mlp-batchnorm": {"eager": 5.0, "compile": 2.0, "graph": 1 / 1.2},
    "dcgan-tf": {"eager": 2.0},
}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if importlib.util.find_spec("torch") is None:
        print("error: this benchmark needs PyTorch: pip install torch", file=sys.stderr)
        return 2
    try:
        about = find_device(options.device)
    except BackendError as why:
        print(f"error: this benchmark needs an NVIDIA GPU: {why}", file=sys.stderr)
        return 2
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    runs = [
        measure(options, model, batch)
        for model in options.model
        for batch in options.batch or BATCHES[model]
    ]
    if any(not run["contenders"] for run in runs):
        print("error: a run has no contender that works", file=sys.stderr)
        return 1
    about["precision"] = options.precision
    title = f"One training step on a {'GPU' if options.device == 'cuda' else 'CPU, as a trial'}"
    write(options, title, TARGETS, runs, [show(run) for run in runs], about)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__, "gpu_step", on_cpu=False)
    return parsed(add_gpu_options(parser, steps=200), argv)


def contenders(options: argparse.Namespace, model: str, batch: int) -> list[Contender]:
    """tinygan twice and PyTorch; its names begin with those of KINDS."""
    common = {"model": model, "batch": batch, "seed": options.seed}
    common |= {"precision": options.precision, "device": options.device}
    found = [
        Contender(OURS, "gpu_contenders:ours", common),
        Contender(EAGER, "gpu_contenders:ours", common | {"captured": False}),
    ]
    other = ("foreach Adam", {"fused": False})  # what Adam takes on a GPU, unless told otherwise
    if model == "dcgan-tf":
        other = ("channels_last", {"channels_last": True})
    for form, name in KINDS.items():
        for words, extra in (("", {}), (f", {other[0]}", other[1])):
            full = common | {"form": form} | extra
            found.append(Contender(name + words, "gpu_contenders:theirs", full))
    return found


def measure(options: argparse.Namespace, model: str, batch: int) -> dict[str, Any]:
    """One comparison, printed as a table."""
    chosen = contenders(options, model, batch)
    if options.device == "cpu":  # compiling takes a minute
        chosen = [c for c in chosen if c.options.get("form") != "compile"]
    results = compare(chosen, options.threads, options.rounds, options.steps, say)
    run = {"title": f"{model}, batch {batch}, {options.precision}", "model": model, "batch": batch}
    run |= {"contenders": summary(results)["contenders"], "against": against(results)}
    say("\n" + show(run))
    return run


def against(results: list[Result]) -> dict[str, dict[str, Any]]:
    """Our step beside the best of each kind of PyTorch's, as far as both work here."""
    ours = next((r for r in results if r.name == OURS), None)
    kinds = {k: [r for r in results if r.name.startswith(name)] for k, name in KINDS.items()}
    return {k: ratios(ours, rivals) for k, rivals in kinds.items() if ours and rivals}


def show(run: dict[str, Any]) -> str:
    """One comparison in Markdown."""
    rows = run["contenders"]
    ours = rows.get(OURS, {}).get("median_ms")
    lines = [f"### {run['title']}", ""]
    lines += ["| | median ms | minimum ms | steps/s | / ours |", "|---|---:|---:|---:|---:|"]
    for name, row in rows.items():
        times = f"{row['median_ms'] / ours:.2f}" if ours else ""
        lines.append(
            f"| {name} | {row['median_ms']:.4f} | {row['minimum_ms']:.4f} "
            f"| {1e3 / row['median_ms']:,.0f} | {times} |"
        )
    lines.append("")
    for kind, found in run["against"].items():
        aim = TARGETS[run["model"]].get(kind)
        target = f" (target: at least {aim:.2f})" if aim else ""
        lines.append(
            f"- {found['best']} takes **{1 / found['ratio_of_medians']:.2f}** times our median"
            f"{target}; minima {1 / found['ratio_of_minima']:.2f}, "
            f"round by round {1 / found['median_of_ratios']:.2f}."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
