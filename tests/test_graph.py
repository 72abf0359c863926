"""Steps that are recorded as a CUDA graph and replayed, on the stand-in or on a device: equal to
steps made launch by launch, to the last bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import standin
from narrow import game_of, with_labels
from small_games import SMALL_GAMES, SmallGame

from tinygan import Adam, get_backend
from tinygan.backend import Backend
from tinygan.backend.cublas import Cublas
from tinygan.backend.graph import SLOTS, WARM_UPS, CapturedStep
from tinygan.errors import CaptureWarning
from tinygan.optim import hold
from tinygan.presets import PRESETS
from tinygan.run.readings import ROWS, Readings

STEPS = 16  # over two epochs of the small games
Open = Callable[..., Backend]


def is_recorded(step: Any) -> bool:
    return isinstance(step, CapturedStep) and step._graph is not None


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name, tensor in a.items():
        np.testing.assert_array_equal(tensor, b[name], err_msg=name)


def difference(small: SmallGame, steps: int = STEPS) -> float:
    """How far a captured game of the same kind gets away from this one."""
    twin = SMALL_GAMES["mlp-leaky"](small.game.D.backend).captured()
    for step in range(1, steps + 1):
        small.play(step)
        twin.play(step)
    other = twin.state()
    return max(float(np.abs(t - other[name]).max()) for name, t in small.state().items())


# ---- what a replay does --------------------------------------------------------------------------


def test_numpy_makes_the_step_itself() -> None:
    def step() -> int:
        return 3

    assert get_backend("numpy").capture(step) is step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMALL_GAMES)
def test_replays_are_the_steps_themselves(open_device: Open, name: str, dtype: str) -> None:
    """Two updates of D, epochs' ends, dropout, schedules and metrics included: bit for bit."""
    plain = SMALL_GAMES[name](open_device(dtype))
    captured = SMALL_GAMES[name](open_device(dtype)).captured()
    for step in range(1, STEPS + 1):
        plain.play(step)
        captured.play(step)
        assert is_recorded(captured.move) == (step > WARM_UPS)
        assert plain.game.metrics() == captured.game.metrics()
        assert_equal(plain.state(), captured.state())


@pytest.mark.parametrize("told", [False, True], ids=["", "conditional"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_recorded(open_device: Open, name: str, told: bool) -> None:
    preset = PRESETS[name]
    if told and preset.kind != "images":
        pytest.skip("no labels here")
    games = [game_of(with_labels(preset) if told else preset, open_device()) for _ in range(2)]
    optimisers = [[Adam(net, 1e-3) for net in (game.G, game.D)] for game in games]

    def step_of(i: int) -> Callable[[], None]:
        game, (descend, ascend) = games[i], optimisers[i]

        def step() -> None:
            z = game.draw_noise()
            game.discriminator_gradient(game.sample(), game.fakes(z))
            ascend.step()
            game.generator_gradient(game.fakes(game.draw_noise()))
            descend.step()
            game.G.update_statistics(game.G_of_z)

        return step

    plain, captured = step_of(0), games[1].D.backend.capture(step_of(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        for step in range(1, 6):
            for game, make in zip(games, (plain, captured), strict=True):
                game.noise.step = step
                make()
            assert games[0].metrics() == games[1].metrics()
    for net in ("G", "D"):
        assert_equal(getattr(games[0], net).state(), getattr(games[1], net).state())


def test_a_replay_neither_waits_nor_copies(cupy_standin: Open) -> None:
    small = SMALL_GAMES["mlp-batchnorm"](cupy_standin()).captured()
    with standin.counted() as events:
        for step in range(1, STEPS):
            small.play(step)
    assert events == []


def test_resumed_steps_are_the_straight_run_s(open_device: Open) -> None:
    """What one process makes by replays, another one makes launch by launch: no bit differs."""
    straight = SMALL_GAMES["mlp-batchnorm"](open_device()).captured()
    resumed = SMALL_GAMES["mlp-batchnorm"](open_device()).captured()
    for step in range(1, 11):
        straight.play(step)
    for step in range(1, 6):
        resumed.play(step)
    again = SMALL_GAMES["mlp-batchnorm"](open_device()).captured()
    again.game.G.load(resumed.game.G.state())
    again.game.D.load(resumed.game.D.state())
    again.G_optimiser.load(resumed.G_optimiser.state())
    again.D_optimiser.load(resumed.D_optimiser.state())
    for step in range(6, 11):
        again.play(step)
    assert_equal(straight.state(), again.state())


def test_schedules_go_on_in_replays(open_device: Open) -> None:
    net = SMALL_GAMES["mlp-leaky"](open_device()).game.G
    net.gradients.fill(1.0)
    optimiser = Adam(net, hold(0.1, 3, 6))
    reference = net.copy()
    reference.gradients.fill(1.0)
    twin = Adam(reference, hold(0.1, 3, 6))
    step = net.backend.capture(optimiser.step)
    for _ in range(8):
        step()
        twin.step()
    assert optimiser.t == twin.t == 8
    assert_equal(net.state(), reference.state())


def test_a_larger_batch_between_replays_disturbs_nothing(open_device: Open) -> None:
    """Scratch memory that is outgrown by somebody else's call stays the graph's."""
    backend = open_device()
    scratch = backend.workspace("test", (4,))
    total = backend.zeros((4,))

    def step() -> None:
        backend.workspace("test", (4,)).fill(1.0)
        nonlocal total
        total += backend.workspace("test", (4,))

    make = backend.capture(step)
    for _ in range(3):
        make()
    del scratch
    others = backend.workspace("test", (400,))
    others.fill(7.0)
    fresh = backend.empty((4,))
    fresh.fill(9.0)
    make()
    assert backend.to_host(total).tolist() == [4.0] * 4
    assert backend.to_host(fresh).tolist() == [9.0] * 4
    assert backend.to_host(others).tolist() == [7.0] * 400


def test_what_a_step_returns(open_device: Open) -> None:
    backend = open_device()
    at = backend.zeros((), "float64")

    def step() -> Any:
        nonlocal at
        at += 1.0
        return 2.0 * at

    make = backend.capture(step)
    assert [float(backend.to_host(make())) for _ in range(5)] == [2.0, 4.0, 6.0, 8.0, 10.0]


# ---- where it cannot be --------------------------------------------------------------------------


def test_a_step_that_waits_is_made_without_a_graph(open_device: Open) -> None:
    """Said once; the results are those of the plain way."""
    plain = SMALL_GAMES["mlp-leaky"](open_device())
    small = SMALL_GAMES["mlp-leaky"](open_device())
    move = small.move

    def waits() -> None:
        move()
        float(small.game.d_loss)

    small.move = small.game.D.backend.capture(waits)  # type: ignore[method-assign]
    for step in range(1, STEPS):
        plain.play(step)
        if step == WARM_UPS + 1:
            with pytest.warns(CaptureWarning, match="without a CUDA graph, more slowly") as seen:
                small.play(step)
            assert len(seen) == 1
        else:
            small.play(step)
    assert not is_recorded(small.move)
    assert_equal(plain.state(), small.state())


def test_a_recording_that_finds_no_memory(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, before CuPy's pool frees what the graph would use; the step goes on without."""
    backend = cupy_standin()

    def step() -> None:
        backend.zeros((3,))

    make = backend.capture(step)
    for _ in range(WARM_UPS):
        make()

    def full(size: int) -> Any:
        raise standin.cuda.runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr(standin.cuda, "Memory", full)
    with pytest.warns(CaptureWarning, match="cudaErrorMemoryAllocation"):
        make()
    make()
    assert not is_recorded(make)


def test_another_stream_in_between_is_left_again(open_device: Open) -> None:
    """A user's own, or the one of another thread."""
    plain, small = (SMALL_GAMES["mlp-leaky"](open_device()) for _ in range(2))
    backend = small.captured().game.D.backend
    cuda = backend.xp.cuda
    for step in range(1, STEPS):
        plain.play(step)
        with cuda.Stream(non_blocking=True):
            pass
        assert cuda.get_current_stream() == backend.stream  # type: ignore[attr-defined]
        cuda.Stream.null.use()
        small.play(step)
    assert_equal(plain.state(), small.state())


def test_an_error_of_the_step_is_its_own(open_device: Open) -> None:
    backend = open_device()
    calls = []

    def step() -> None:
        calls.append(0)
        if len(calls) > WARM_UPS:
            raise ValueError("something of the user's")

    make = backend.capture(step)
    for _ in range(WARM_UPS):
        make()
    with pytest.warns(CaptureWarning), pytest.raises(ValueError, match="of the user's"):
        make()


def test_too_many_numbers(open_device: Open) -> None:
    backend = open_device()

    def step() -> None:
        for _ in range(SLOTS + 1):
            backend.numbers(1, lambda: (1.0,))

    make = backend.capture(step)
    for _ in range(WARM_UPS):
        make()
    with pytest.warns(CaptureWarning, match=f"more than {SLOTS} numbers"):
        make()


# ---- planted mistakes ----------------------------------------------------------------------------


def test_a_rate_that_is_fixed_in_the_graph_is_found(
    open_device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SMALL_GAMES["mlp-leaky"](open_device())
    assert difference(small) == 0.0
    small = SMALL_GAMES["mlp-leaky"](open_device())

    def fixed(self: Any, count: int, read: Callable[[], Any]) -> Any:
        out = self._backend.empty((count,), "float64")
        self._backend.set_numbers(out, read())
        return out

    monkeypatch.setattr(CapturedStep, "slot", fixed)
    assert difference(small) > 1e-4


def test_an_optimiser_that_counts_for_itself_is_found(
    open_device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SMALL_GAMES["mlp-leaky"](open_device())

    def step(self: Adam) -> None:
        rates = self._advance()  # once, while recording
        self._update(self.network.backend.numbers(2, lambda: rates))

    plain = Adam.step
    small.D_optimiser.step = lambda: plain(small.D_optimiser)  # type: ignore[method-assign,arg-type]
    small.G_optimiser.step = lambda: plain(small.G_optimiser)  # type: ignore[method-assign,arg-type]
    monkeypatch.setattr(Adam, "step", step)
    assert difference(small) > 1e-6


# ---- readings ------------------------------------------------------------------------------------


def test_readings_wait_once_for_many_steps(cupy_standin: Open) -> None:
    backend = cupy_standin()
    small = SMALL_GAMES["mlp-batchnorm"](backend).captured()
    twin = SMALL_GAMES["mlp-batchnorm"](backend)
    readings = Readings(small.game.measure, backend)
    expected = []
    with standin.counted() as events:
        for step in range(1, ROWS + 1):
            assert not readings.full
            small.play(step)
            readings.take(step)
        assert readings.full
        found = readings.read()
    assert events == ["sync: get()"]
    for step in range(1, ROWS + 1):
        twin.play(step)
        expected.append((step, twin.game.metrics()))
    assert found == expected
    assert readings.read() == []


def test_numpy_reads_at_once() -> None:
    small = SMALL_GAMES["mlp-batchnorm"](get_backend("numpy"))
    readings = Readings(small.game.measure, small.game.D.backend)
    small.play(1)
    readings.take(1)
    assert readings.full
    assert readings.read() == [(1, small.game.metrics())]


# ---- products ------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (3, 4, 5), (1, 7, 2), (7, 1, 2), (4, 5, 1), (16, 33, 9)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_own_products_of_all_layouts(open_device: Open, shape: Any, dtype: str) -> None:
    """Rows, transposes and slices of larger arrays, on each of the three places."""
    backend = open_device(dtype)
    draw = np.random.default_rng(0)
    m, k, n = shape

    def layouts(rows: int, columns: int) -> list[Any]:
        a = draw.standard_normal((rows, columns)).astype(dtype)
        wide = draw.standard_normal((rows + 1, columns + 3)).astype(dtype)
        wide[:rows, :columns] = a
        plain = backend.from_host(a)
        turned = backend.from_host(np.ascontiguousarray(a.T)).T
        return [plain, turned, backend.from_host(wide)[:rows, :columns]]

    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for a in layouts(m, k):
        for b in layouts(k, n):
            for out in layouts(m, n):
                before = backend.to_host(out)
                product = backend.to_host(a) @ backend.to_host(b)
                backend.matmul_add(a, b, out=out)
                np.testing.assert_allclose(
                    backend.to_host(out), before + product, rtol=tolerance, atol=tolerance
                )
                backend.matmul(a, b, out=out)
                np.testing.assert_allclose(
                    backend.to_host(out), product, rtol=tolerance, atol=tolerance
                )


def test_own_products_of_many(open_device: Open) -> None:
    backend = open_device("float64")
    draw = np.random.default_rng(1)
    a, b = draw.standard_normal((6, 3, 4)), draw.standard_normal((6, 4, 5))
    there = backend.from_host(a), backend.from_host(b)
    out = backend.matmuls(*there, out=backend.empty((6, 3, 5)))
    np.testing.assert_allclose(backend.to_host(out), a @ b, rtol=1e-13)
    turned = backend.from_host(np.ascontiguousarray(b.transpose(0, 2, 1))).transpose(0, 2, 1)
    out = backend.matmuls(there[0], turned, out=backend.empty((6, 3, 5)))
    np.testing.assert_allclose(backend.to_host(out), a @ b, rtol=1e-13)


def test_what_own_products_leave_to_cupy(open_device: Open) -> None:
    """Every second column, another dtype, an empty array."""
    backend = open_device()
    takes = backend._cublas.takes  # type: ignore[attr-defined]
    square, wide = backend.zeros((4, 4)), backend.zeros((4, 8))
    assert takes(square, square, square)
    assert takes(wide[:, :4], wide[:, 4:], square)
    assert not takes(wide[:, ::2], square, square)
    assert not takes(square.astype("float64"), square, square)
    assert not takes(backend.zeros((4, 0)), backend.zeros((0, 4)), square)


@pytest.mark.parametrize(("precision", "expected"), [("float32", 68), ("tf32", 77)])
def test_precision_is_what_cublas_is_told(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch, precision: str, expected: int
) -> None:
    cupy_standin()
    told = []
    call = Cublas._call

    def spy(self: Cublas, function: str, *args: Any) -> None:
        told.append(args[-2])
        call(self, function, *args)

    backend = get_backend("cupy", "float32", precision)
    monkeypatch.setattr(Cublas, "_call", spy)
    square = backend.zeros((4, 4))
    backend.matmul(square, square, out=backend.empty((4, 4)))
    assert told == [expected]
