"""Threads that share the work of one operation. Why: docs/spectral-convolution.md, section 10.

OpenBLAS shares the many small products of a convolution badly, and while its threads wait for the
next product they keep their cores busy, so that nobody else can share what lies between two
products. Where a network convolves, OpenBLAS is therefore told to use one thread, and the threads
that it had are a team of our own, which shares products and elementwise work alike. Elsewhere
OpenBLAS's own threads measured faster, and the team is the caller alone.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from itertools import pairwise

from tinygan.backend import blas


class Team:
    """`size` threads, the caller's among them; the others sleep between two calls of `share`."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self._busy = threading.Lock()
        self._members = [_Member(i) for i in range(1, self.size)]

    def share(self, work: Callable[[int], None]) -> None:
        """work(0), ..., work(size - 1), each in a thread of its own; returns when all are done.

        What one of them raises is raised here. A call from within a share, or from a second thread
        meanwhile, does everything itself.
        """

        def part(i: int) -> None:
            outside, _thread.within = _thread.within, True
            try:
                work(i)
            finally:
                _thread.within = outside

        if not self._busy.acquire(blocking=False):
            for i in range(self.size):
                part(i)
            return
        jobs: list[_Job] = []
        try:
            try:
                for member in self._members:
                    jobs.append(member.begin(part))
                part(0)
            finally:
                _finish(jobs)
            for job in jobs:
                if job.problem is not None:
                    raise job.problem
        finally:
            self._busy.release()

    def parts(self, n: int, multiple: int = 1) -> list[slice]:
        """range(n) in `size` parts, cut at multiples of `multiple`."""
        cuts = [round(n * i / self.size / multiple) * multiple for i in range(self.size)] + [n]
        return [slice(a, b) for a, b in pairwise(cuts)]

    def share_range(
        self, n: int, work: Callable[[slice, int], None], most: int | None = None
    ) -> None:
        """work(part, who) for parts that make up range(n), each of `most` or less; `who` counts the
        threads from 0."""
        whole = self.parts(n) if n >= 2 * self.size else [slice(0, n)]

        def mine(who: int) -> None:
            start, length = whole[who].start, whole[who].stop - whole[who].start
            count = -(-length // most) if most else 1
            for i in range(count):
                work(slice(start + i * length // count, start + (i + 1) * length // count), who)

        if len(whole) == 1:
            mine(0)
        else:
            self.share(mine)


class _Job:
    """What one member was given to do, and what came of it."""

    def __init__(self, work: Callable[[int], None]) -> None:
        # The caller's context goes along: numpy.errstate is part of it.
        self._work, self._context = work, contextvars.copy_context()
        self._lock = threading.Lock()
        self._lock.acquire()
        self.done = False
        self.problem: BaseException | None = None

    def do(self, number: int) -> None:
        try:
            self._context.run(self._work, number)
        except BaseException as problem:
            self.problem = problem
        self.done = True
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


def _finish(jobs: list[_Job]) -> None:
    """Wait for all of them, and raise what came in between only then.

    A Ctrl-C that left one at work would leave it writing into arrays that others go on to use.
    """
    interruption: BaseException | None = None
    for job in jobs:
        while not job.done:
            try:
                job.wait()
            except BaseException as problem:
                interruption = problem
    if interruption is not None:
        raise interruption


class _Member:
    """One thread: it sleeps until there is a job, and does it."""

    def __init__(self, number: int) -> None:
        self._number, self._begin = number, threading.Lock()
        self._begin.acquire()
        threading.Thread(target=self._live, name=f"tinygan {number}", daemon=True).start()

    def begin(self, work: Callable[[int], None]) -> _Job:
        self._job = _Job(work)
        self._begin.release()
        return self._job

    def _live(self) -> None:
        while True:
            self._begin.acquire()
            self._job.do(self._number)


class _Thread(threading.local):
    within = False  # whether this thread does its part of a share


ALONE, _thread = Team(1), _Thread()
_formed: list[Team] = []  # of the process, once there is one


def the_team() -> Team:
    """The process's team. It is the caller alone until `form_team` was called, and within a share,
    where cutting the work once more would help nobody."""
    return _formed[0] if _formed and not _thread.within else ALONE


def form_team() -> None:
    """From now on the team has as many threads as OpenBLAS had, and OpenBLAS has one.

    So OPENBLAS_NUM_THREADS means what it says. Without an OpenBLAS of NumPy's wheels the team stays
    the caller alone, and the BLAS that is there shares its products as it likes.
    """
    if not _formed:
        _formed.append(Team(blas.take_threads()))


def thread_count() -> int | None:
    """How many threads large operations are shared by, or None where the BLAS does not say."""
    return _formed[0].size if _formed and _formed[0].size > 1 else blas.thread_count()


if hasattr(os, "register_at_fork"):  # of the threads a child has the caller's only
    os.register_at_fork(after_in_child=_formed.clear)
