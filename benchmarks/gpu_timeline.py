"""Where the time of a training step on a CUDA device goes, kernel by kernel.

    python benchmarks/gpu_timeline.py
    python benchmarks/gpu_timeline.py --model dcgan-tf --precision tf32 --out results/timeline_tf32

PyTorch's profiler sees every kernel of this process, CuPy's and cuBLAS's too, also when a CUDA
graph is replayed. Without PyTorch, CuPy's events time the backend's operations in a step that is
not captured. What neither covers stands in a row of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_contenders import WARM_UPS, add_gpu_options, find_device
from mlp_contenders import Ours
from report import parsed, parser_for, say, write

from tinygan.backend import Backend
from tinygan.errors import BackendError
from tinygan.run.manifest import versions

REST = "(nothing of these)"
NO_WORK = {"check", "convolution", "empty", "empty_images", "empty_like", "numbers", "rows"}
NO_WORK |= {"capture", "scratch", "scratch_images", "synchronise", "workspace", "zeros"}


class Event(NamedTuple):
    """What ran, from when to when, in microseconds."""

    name: str
    start: float
    end: float


def main(argv: list[str] | None = None) -> int:
    parser = parser_for(__doc__, "gpu_timeline", batch=[64], on_cpu=False)
    parser = add_gpu_options(parser, steps=20)
    parser.set_defaults(rounds=1)
    options = parsed(parser, argv)
    try:
        about = find_device(options.device) | {"precision": options.precision}
    except BackendError as why:
        print(f"error: a timeline needs an NVIDIA GPU: {why}", file=sys.stderr)
        return 2
    cases = [(m, b, c) for m in options.model for b in options.batch for c in (True, False)]
    runs = [run for case in cases if (run := timeline(options, *case))]
    tables = [table(run) for run in runs]
    say("\n".join(tables))
    about["versions"] = versions("cupy" if options.device == "cuda" else "numpy")
    write(options, "A training step, kernel by kernel", {}, runs, tables, about)
    return 0


def timeline(
    options: argparse.Namespace, model: str, batch: int, captured: bool
) -> dict[str, Any] | None:
    """What runs in a step; None where there is nothing to see it with."""
    game = Ours(
        batch,
        options.seed,
        preset=model,
        backend="cupy" if options.device == "cuda" else "numpy",
        precision=options.precision,
        captured=captured,
    )
    for _ in range(WARM_UPS):
        game.step()
    game.backend.synchronise()
    events = by_kernel(game, options.steps) if options.device == "cuda" else []
    if not events and not captured:  # to CuPy's events, a graph would be one piece
        events = by_operation(game, options.steps)
    if not events:
        return None
    title = f"{model}, batch {batch}, {'replayed' if captured else 'not captured'}"
    return {"title": title, **totals(events, options.steps)}


def by_kernel(game: Ours, steps: int) -> list[Event]:
    """Every kernel and every copy on the device in `steps` steps; none where PyTorch cannot see."""
    if importlib.util.find_spec("torch") is None:
        return []
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            game.step()
        game.backend.synchronise()
    found = [e for e in seen.events() if e.device_type == DeviceType.CUDA]
    return [Event(e.name, e.time_range.start, e.time_range.end) for e in found]


def by_operation(game: Ours, steps: int) -> list[Event]:
    """Every call of an operation of the backend that is no part of another one."""
    mark, since = _clock(game.backend)
    marks: list[tuple[str, Any, Any]] = []
    running: list[str] = []

    def timed(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if running:
                return operation(*args, **options)
            running.append(name)
            start = mark()
            try:
                return operation(*args, **options)
            finally:
                marks.append((running.pop(), start, mark()))

        return call

    for name in vars(Backend):
        if callable(getattr(Backend, name)) and name[0] != "_" and name not in NO_WORK:
            setattr(game.backend, name, timed(name, getattr(game.backend, name)))
    first = mark()
    for _ in range(steps):
        game.step()
    game.backend.synchronise()
    return [Event(name, since(first, start), since(first, end)) for name, start, end in marks]


def _clock(backend: Backend) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """What sets a mark in the device's work, and the microseconds between two of them."""
    if backend.name == "numpy":
        return time.perf_counter, lambda a, b: 1e6 * (b - a)
    cuda = backend.xp.cuda

    def mark() -> Any:
        event = cuda.Event()
        event.record()
        return event

    return mark, lambda a, b: 1e3 * float(cuda.get_elapsed_time(a, b))


def totals(events: list[Event], steps: int) -> dict[str, Any]:
    """By name, largest first: how often in a step, microseconds in a step, share of the whole."""
    times: dict[str, list[float]] = defaultdict(list)
    begin, covered, until = min(e.start for e in events), 0.0, 0.0
    for event in sorted(events, key=lambda e: e.start):
        times[event.name].append(event.end - event.start)
        covered += max(0.0, event.end - max(event.start, until))  # some may run side by side
        until = max(until, event.end)
    whole = until - begin
    rows = [(name, len(t) / steps, sum(t) / steps) for name, t in times.items()]
    rows = [*sorted(rows, key=lambda row: -row[2]), (REST, 0, (whole - covered) / steps)]
    found = [{"name": n, "count": c, "us": t, "share": t * steps / whole} for n, c, t in rows]
    return {"us_per_step": whole / steps, "rows": found}


def table(run: dict[str, Any]) -> str:
    """One step in Markdown."""
    lines = [f"### {run['title']}: {run['us_per_step']:,.1f} µs", ""]
    lines += ["| name | a step | µs | share |", "|---|---:|---:|---:|"]
    for row in run["rows"]:
        name = row["name"].replace("|", "¦")[:80]
        lines.append(f"| {name} | {row['count']:g} | {row['us']:,.2f} | {row['share']:.1%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
