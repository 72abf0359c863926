"""Timing contenders beside each other: one process each, round-robin, one computing at a time.

A *contender* is a name, a function "module:make" and the environment its process starts in (BLAS
and OpenMP read theirs once, when they are loaded). `make(**options)` imports what the contender
needs and returns a `Prepared`: a step to time and words about it. A worker process runs nothing
but the sample that it is asked for; between samples it blocks on a pipe.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Idle threads of OpenBLAS and OpenMP go on spinning for some milliseconds after their last job:
# a pause between samples keeps one contender's threads out of the next one's time.
PAUSE = 0.05
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Contender:
    """Who is timed: `make` is "module:function", called as make(**options) in its own process."""

    name: str
    make: str
    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Prepared:
    """What `make` returns: one training step, words for the report, memory after the imports.

    `wait` returns when what the steps began has ended: a device goes on after they have returned.
    """

    step: Callable[[], object]
    about: dict[str, Any]
    rss_after_imports: int
    wait: Callable[[], object] = lambda: None


@dataclass
class Result:
    """Seconds per step of every sample, and what the worker said of itself when it ended."""

    name: str
    samples: list[float]
    about: dict[str, Any]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        return min(self.samples)


class WorkerFailed(Exception):
    """A contender cannot run here; the message is its last line."""


class Worker:
    """A contender's process, as seen from the program that compares."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.name = contender.name
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads)) | contender.environment
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads fills up
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            text=True,
        )
        try:
            self._ask({"make": contender.make, "options": contender.options})
        except WorkerFailed:
            self.close()
            raise

    def sample(self, steps: int) -> float:
        """Seconds per step, after one step that is not timed (caches, sleeping threads)."""
        return float(self._ask({"sample": steps})["seconds"])

    def about(self) -> dict[str, Any]:
        return self._ask({"about": True})

    def close(self) -> None:
        """End the process; it may have ended by itself."""
        self._process.communicate()
        self._said.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: what it said last will tell
            print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            raise WorkerFailed(said[-1] if said else "its process ended without a word")
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise WorkerFailed(reply["error"])
        return reply


def compare(
    contenders: Sequence[Contender],
    threads: int,
    rounds: int,
    steps: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """`rounds` samples of `steps` steps for each contender in turn; who fails is left out."""
    workers: list[Worker] = []
    try:
        for contender in contenders:
            try:
                workers.append(Worker(contender, threads))
                workers[-1].sample(steps)  # warm-up: compiled code, buffers, cold pages
            except WorkerFailed as why:
                say(f"{contender.name}: left out: {why}")
                if workers and workers[-1].name == contender.name:
                    workers.pop().close()
        samples: dict[str, list[float]] = {worker.name: [] for worker in workers}
        for i in range(rounds):
            # Each round starts with the next one, so that no one always follows the same other.
            first = i % max(1, len(workers))
            for worker in workers[first:] + workers[:first]:
                time.sleep(PAUSE)
                try:
                    samples[worker.name].append(worker.sample(steps))
                except WorkerFailed as why:
                    say(f"{worker.name}: left out: {why}")
                    workers.remove(worker)
                    worker.close()
        return [Result(w.name, samples[w.name], w.about()) for w in workers] if workers else []
    finally:
        for worker in workers:
            worker.close()


def serve() -> None:
    """The worker's side: questions as JSON lines on stdin, answers on what was stdout."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not look like one
    prepared: Prepared | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if "make" in question:
                module, function = question["make"].split(":")
                prepared = getattr(importlib.import_module(module), function)(**question["options"])
                reply: dict[str, Any] = {}
            elif "sample" in question:
                assert prepared is not None
                reply = {"seconds": time_steps(prepared, question["sample"])}
            else:
                assert prepared is not None
                reply = _about(prepared)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            reply = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(reply), file=answers, flush=True)


def time_steps(prepared: Prepared, steps: int) -> float:
    """Seconds per step, after one that is not timed."""
    prepared.step()
    prepared.wait()
    start = time.perf_counter()
    for _ in range(steps):
        prepared.step()
    prepared.wait()
    return (time.perf_counter() - start) / steps


def _about(prepared: Prepared) -> dict[str, Any]:
    return {
        **prepared.about,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "rss_after_imports": prepared.rss_after_imports,
        "peak_rss": peak_rss(),
    }


def rss() -> int:
    """Bytes of memory this process has resident now (Linux; elsewhere its peak)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_rss()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> int:
    """The most bytes of memory this process ever had resident: its high-water mark."""
    try:  # of this program alone: ru_maxrss also remembers the process it was forked from
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def blas() -> list[str]:
    """The BLAS libraries loaded in this process: name, version, the kernels it chose, threads."""
    from threadpoolctl import threadpool_info

    return [
        f"{info['internal_api']} {info['version']} {info.get('architecture', '')} "
        f"x{info['num_threads']}".replace("  ", " ")
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]


if __name__ == "__main__":
    # Contenders import this module too: let them find the one that runs, not a second copy of it.
    sys.modules["harness"] = sys.modules["__main__"]
    serve()
