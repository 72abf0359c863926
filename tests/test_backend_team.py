"""The team of threads: work is done once, problems come back, shared operations are equal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from operations import FLAVOURS, OPERATIONS, Plain, compare

from tinygan import Network
from tinygan.backend import blas, numpy_backend, team
from tinygan.backend.numpy_backend import NumpyBackend
from tinygan.backend.team import Team
from tinygan.nn import ConvTranspose2D, Dense, Reshape, Sequential


@pytest.fixture(params=[(2, 0), (2, 4000), (3, 0), (3, 4000)], ids=str)
def shared(request, monkeypatch):
    """A backend whose every operation, however small, is shared by so many threads."""
    monkeypatch.setattr(numpy_backend, "PRODUCT", 0)
    monkeypatch.setattr(numpy_backend, "ARRAY", 0)
    threads, unpacked = request.param
    monkeypatch.setattr(numpy_backend, "STRIP", 24)
    monkeypatch.setattr(numpy_backend, "NARROW", 1)
    monkeypatch.setattr(numpy_backend, "unpacked", lambda: unpacked)
    monkeypatch.setattr(team, "_formed", [Team(threads)])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_everybody_works_once(size):
    who = [None] * size

    def work(i):
        assert who[i] is None
        who[i] = threading.get_ident()

    Team(size).share(work)
    assert who[0] == threading.get_ident()
    assert len(set(who)) == size


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_make_up_the_whole(n, multiple, size):
    parts = Team(size).parts(n, multiple)
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert len(parts) == size
    assert all(part.start % multiple == 0 for part in parts if part.start < n)


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_problem_comes_back_and_the_team_goes_on(culprit):
    two, done = Team(2), []

    def work(i):
        if i == culprit:
            raise ValueError(f"in part {i}")
        done.append(i)

    with pytest.raises(ValueError, match=f"in part {culprit}"):
        two.share(work)
    assert done == [1 - culprit]
    two.share(done.append)
    assert sorted(done) == sorted([0, 1, 1 - culprit])


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_while_waiting_leaves_nobody_at_work(times, monkeypatch):
    two, late, presses = Team(2), threading.Event(), [KeyboardInterrupt] * times
    wait, done = team._Job.wait, []

    def interrupted(job):
        if presses:
            raise presses.pop()
        late.set()
        wait(job)

    def work(i):
        if i == 1:
            late.wait()
        done.append(i)

    monkeypatch.setattr(team._Job, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        two.share(work)
    assert done == [0, 1]
    two.share(done.append)
    assert sorted(done[2:]) == [0, 1]


def test_a_share_within_a_share_is_done_by_its_caller():
    two, done = Team(2), []
    two.share(lambda i: two.share(lambda j: done.append((i, j))))
    assert sorted(done) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_within_a_share_the_team_is_the_caller_alone(monkeypatch):
    two, seen = Team(2), []
    monkeypatch.setattr(team, "_formed", [two])

    def work(i):
        seen.append(team.the_team().size)
        if i == 0:
            two.share(lambda j: None)  # and is still so after one within
            seen.append(team.the_team().size)

    two.share(work)
    assert seen == [1, 1, 1]
    assert team.the_team() is two
    with pytest.raises(ZeroDivisionError):
        two.share(lambda i: 1 // 0)
    assert team.the_team() is two


def test_so_it_is_where_the_team_is_busy_with_another(monkeypatch):
    """Else a cut, and with it a sum's bits, would depend on who else computes."""
    two, seen = Team(2), []
    monkeypatch.setattr(team, "_formed", [two])
    with two._busy:
        two.share(lambda i: seen.append(team.the_team()))
    assert seen == [team.ALONE, team.ALONE]


def test_a_thread_outside_still_sees_the_team(monkeypatch):
    two, seen = Team(2), []
    monkeypatch.setattr(team, "_formed", [two])

    def work(i):
        if i == 0:
            other = threading.Thread(target=lambda: seen.append(team.the_team()))
            other.start()
            other.join()

    two.share(work)
    assert seen == [two]


@pytest.mark.parametrize("convolves", [True, False])
def test_the_team_is_formed_before_the_first_step(convolves, monkeypatch):
    """A run that is resumed must cut its first product as the straight run cuts it."""
    formed = []
    monkeypatch.setattr(team, "_formed", formed)
    monkeypatch.setattr(team.blas, "take_threads", lambda: 1)
    layers = [Dense(2, 8), Reshape(2, 2, 2), *([ConvTranspose2D(2, 1, 3)] if convolves else [])]
    Network(Sequential(*layers), (2,), NumpyBackend())
    assert len(formed) == convolves


def test_members_take_over_the_callers_errstate():
    two, zero = Team(2), np.zeros(3)
    with np.errstate(divide="ignore"):
        two.share(lambda i: 1.0 / zero)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        two.share(lambda i: 1.0 / zero if i else None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("n", "m"), [(70, 66), (5, 3), (1, 1)])
def test_shared_operations_equal_the_plain_ones(shared, name, dtype, n, m):
    for flavour in FLAVOURS:
        compare(name, NumpyBackend(dtype), Plain(dtype), n + m, n, m, flavour)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_busy_team_leaves_every_part_to_the_caller(shared, name):
    with team.the_team()._busy:
        compare(name, NumpyBackend("float64"), Plain("float64"), 0, 70, 66, "normal")


@pytest.mark.parametrize(("m", "k", "n"), [(9, 5, 130), (94, 31, 129), (3, 40, 130), (130, 5, 9)])
def test_shared_products_in_strips(shared, m, k, n):
    rng = np.random.default_rng(m)
    a, b, c = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=(m, n))
    backend = NumpyBackend("float64")
    np.testing.assert_allclose(backend.matmul(a, b, np.empty((m, n))), a @ b, atol=1e-12)
    np.testing.assert_allclose(backend.matmul_add(a, b, c.copy()), c + a @ b, atol=1e-12)
    one, row = a[:, :1], b[:1]
    np.testing.assert_allclose(backend.matmul(one, row, np.empty((m, n))), one @ row, atol=1e-12)


@pytest.mark.parametrize(("m", "k", "n"), [(8, 40, 96), (96, 40, 8), (5, 40, 7), (64, 1, 64)])
@pytest.mark.parametrize("transposed", [False, True])
def test_shared_products_at_points(shared, m, k, n, transposed):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(7, m, k)), rng.normal(size=(7, k, n))
    if transposed:
        b = np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)
    out = NumpyBackend("float64").matmuls(a, b, np.empty((7, m, n)))
    np.testing.assert_allclose(out, a @ b, atol=1e-12)


@pytest.mark.parametrize("most", [None, 1, 3, 50])
@pytest.mark.parametrize("n", [1, 2, 7, 33])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_shared_range_is_made_up_by_pieces_of_at_most(size, n, most):
    done = []
    Team(size).share_range(n, lambda part, who: done.append((part, who)), most)
    numbers = sorted(i for part, _ in done for i in range(n)[part])
    assert numbers == list(range(n))
    assert all(part.stop - part.start <= (most or n) for part, _ in done)
    assert {who for _, who in done} <= set(range(size))


CHILD = """
import os, threading, warnings
from tinygan.backend import team
team.form_team()
assert os.environ["OPENBLAS_NUM_THREADS"] == str(team.the_team().size), team.the_team().size
warnings.simplefilter("ignore")  # Python's own, about forking with threads
pid = os.fork()
if pid == 0:
    done = []
    team.the_team().share(done.append)
    os._exit(0 if done == [0] else 1)
assert os.waitpid(pid, 0)[1] == 0
done = []
team.the_team().share(done.append)
assert sorted(done) == [0, 1], done
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(blas.thread_count() is None, reason="no OpenBLAS whose threads make a team")
def test_a_forked_child_is_alone_and_the_parent_goes_on():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", CHILD], check=True, env=environment, timeout=60)
