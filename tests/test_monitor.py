"""What the monitor says, what it does not say, and the number it reads diversity from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tinygan import get_backend
from tinygan.gan.algorithm1 import METRICS
from tinygan.gan.monitor import BEFORE, LEAST_ROWS, RECOVERED, SIGNS, Monitor
from tinygan.gan.spread import spread
from tinygan.run.metrics_file import read_metrics

RECORDED = Path(__file__).resolve().parent / "recorded"
PATIENCE = {sign.name: sign.patience for sign in SIGNS}

HEALTHY = {
    "d_loss": 0.5,
    "g_loss": 1.1,
    "d_real": 0.7,
    "d_fake": 0.4,
    "acc_real": 0.9,
    "acc_fake": 0.8,
    "penalty": 0.0,
    "g_gradient": 1.0,
    "spread": 0.9,
}
SURE = {"d_loss": 1e-4, "d_real": 0.9999, "d_fake": 1e-4, "acc_real": 1.0, "acc_fake": 1.0}

# Sign -> the metrics from the moment when something goes wrong, and the run's objective.
ILL = {
    "strong-d": ({**SURE, "g_loss": 9.2}, "non-saturating"),
    "no-d": ({"d_real": 0.45, "d_fake": 0.5}, "non-saturating"),
    "saturated": ({**SURE, "g_loss": -1e-4, "g_gradient": 1e-3}, "minimax"),
    "collapsed": ({"spread": 0.2}, "non-saturating"),
    "exploding": ({"d_real": 900.0, "d_fake": 700.0, "d_loss": -200.0}, "wgan"),
    "mixed-batch": ({**SURE, "g_loss": 0.8}, "non-saturating"),
}


def follow(
    monitor: Monitor, values: dict[str, float], steps: range
) -> Iterator[tuple[int, list[str]]]:
    for step in steps:
        yield step, monitor.see(step, {**HEALTHY, **values})


def spoken(monitor: Monitor, values: dict[str, float], steps: range) -> dict[int, list[str]]:
    """Step -> what was said there."""
    return {step: words for step, words in follow(monitor, values, steps) if words}


# ---- every sign --------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ILL)
@pytest.mark.parametrize("every", [1, 10, 50])
def test_each_sign_is_said_once_when_it_has_lasted(sign: str, every: int) -> None:
    values, objective = ILL[sign]
    monitor = Monitor(objective)
    assert not spoken(monitor, {}, range(every, 1001, every))
    said = spoken(monitor, values, range(1000 + every, 9001, every))
    assert sign in monitor.said
    lasted = monitor.said[sign] - 1000
    rows = (BEFORE + 20) * every  # so many are needed, however far apart
    assert PATIENCE[sign] <= lasted <= max(PATIENCE[sign], rows) + BEFORE * every
    (words,) = (line for line in said[monitor.said[sign]])
    assert "\n" not in words
    assert sum(len(lines) for lines in said.values()) == len(monitor.said)


@pytest.mark.parametrize("sign", ILL)
def test_no_sign_is_said_of_what_passes(sign: str) -> None:
    values, objective = ILL[sign]
    monitor, patience = Monitor(objective), PATIENCE[sign]
    for start in range(1, 20 * patience, 2 * patience):
        assert not spoken(monitor, values, range(start, start + patience - 50, 10))
        assert not spoken(monitor, {}, range(start + patience - 50, start + 2 * patience, 10))


@pytest.mark.parametrize("sign", [sign for sign in ILL if sign != "no-d"])
def test_odd_readings_do_not_hide_a_sign(sign: str) -> None:
    values, objective = ILL[sign]
    monitor = Monitor(objective)
    spoken(monitor, {}, range(10, 1001, 10))
    for step in range(1010, 5001, 10):
        monitor.see(step, HEALTHY if step % 70 == 0 else {**HEALTHY, **values})
    assert sign in monitor.said


def test_a_coin_is_no_idle_d() -> None:
    """At the equilibrium D(G(z)) is above D(x) every other time, and that is as it should be."""
    draws = np.random.default_rng(0).normal(0.5, 0.01, (20_000, 2))
    monitor = Monitor()
    for i, (real, fake) in enumerate(draws):
        monitor.see(100 * i + 1, {**HEALTHY, "d_real": real, "d_fake": fake})
    assert not monitor.said


@pytest.mark.parametrize("sign", ILL)
def test_rare_readings_are_waited_for(sign: str) -> None:
    """Ten thousand steps between two rows do not make a thing last."""
    values, objective = ILL[sign]
    monitor = Monitor(objective)
    spoken(monitor, {}, range(10_000, 100_001, 10_000))
    assert not spoken(monitor, values, range(110_000, 110_000 + (LEAST_ROWS - 1) * 10_000, 10_000))
    spoken(monitor, values, range(200_000, 600_001, 10_000))
    assert sign in monitor.said


def test_a_sign_is_said_again_when_it_was_gone_for_long() -> None:
    values, _ = ILL["collapsed"]
    monitor, patience = Monitor(), PATIENCE["collapsed"]

    def live(what: dict[str, float], steps: int) -> dict[int, list[str]]:
        start = monitor_at[0]
        monitor_at[0] = start + steps
        return spoken(monitor, what, range(start + 10, start + steps + 1, 10))

    monitor_at = [0]
    assert not live({}, 1000)
    assert len(live(values, 2 * patience)) == 1
    assert not live({}, 2 * patience)
    assert not live(values, 3 * patience)  # gone for a moment only
    assert not live({}, (RECOVERED + 1) * patience)
    assert len(live(values, 2 * patience)) == 1


# ---- the edges of each -------------------------------------------------------------------------


def run_of(values: dict[str, float], objective: str = "non-saturating", **rest: bool) -> set[str]:
    """The signs said in a long run whose first hundred readings are healthy."""
    monitor = Monitor(objective, **rest)
    spoken(monitor, {}, range(10, 1001, 10))
    spoken(monitor, values, range(1010, 9001, 10))
    return set(monitor.said)


def test_a_critic_may_be_right() -> None:
    values = {"acc_real": 1.0, "acc_fake": 1.0, "d_real": 3.0, "d_fake": -3.0}
    assert run_of(values, "wgan") == set()
    assert run_of(values, "hinge") == {"strong-d"}


def test_one_side_alone_is_no_strong_d() -> None:
    assert run_of({"acc_real": 1.0, "acc_fake": 0.9}) == set()


def test_a_small_gradient_at_the_equilibrium_is_no_saturation() -> None:
    assert run_of({"g_gradient": 1e-4, "acc_real": 0.6}) == set()
    assert run_of({"g_gradient": 1e-4, "acc_real": 0.97, "acc_fake": 0.97}) == {"saturated"}
    assert run_of({"g_gradient": 0.02, "acc_real": 0.97, "acc_fake": 0.97}) == set()


def test_fakes_that_are_a_little_closer_than_data_are_no_collapse() -> None:
    assert run_of({"spread": 0.4}) == set()
    assert run_of({"spread": 0.28}) == {"collapsed"}


def test_fakes_that_are_alike_from_the_start_have_more_time() -> None:
    monitor = Monitor()
    assert not spoken(monitor, {"spread": 0.1}, range(10, 4901, 10))
    assert list(spoken(monitor, {"spread": 0.1}, range(4910, 9001, 10))) == [5000]
    assert set(monitor.said) == {"alike"}


def test_scores_explode_by_their_gap() -> None:
    """A critic's scores may go anywhere together."""
    assert run_of({"d_real": 9000.0, "d_fake": 8990.0, "g_loss": -8990.0}, "wgan") == set()
    assert run_of({"d_real": 9000.0, "d_fake": 8890.0}, "wgan") == {"exploding"}


def test_a_bounded_critic_may_tell_far_worlds_apart() -> None:
    far = {"d_real": 150.0, "d_fake": 0.0}
    for bounded, said in ((True, set()), (False, {"exploding"})):
        monitor = Monitor("wgan", bounded)
        spoken(monitor, far, range(10, 3001, 10))
        assert set(monitor.said) == said


def test_losses_explode() -> None:
    assert run_of({"g_loss": 150.0}) == {"exploding"}
    assert run_of({"g_loss": 90.0}) == set()


def test_two_turns_agree_when_d_is_the_same_function() -> None:
    """E -log D(G(z)) is never below -log E D(G(z))."""
    assert "mixed-batch" not in run_of({**SURE, "d_fake": 0.02, "g_loss": -math.log(0.02)})
    assert "mixed-batch" not in run_of({**SURE, "g_loss": 0.8}, "lsgan")
    assert run_of({**SURE, "g_loss": 0.8}) == {"mixed-batch"}  # and no word on a strong D


# ---- numbers that are none ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_what_is_not_finite_is_said_at_once_and_once(name: str, value: float) -> None:
    monitor = Monitor()
    spoken(monitor, {}, range(1, 11))
    (words,) = monitor.see(11, {**HEALTHY, name: value})
    assert f"{name} is {value:g}" in words
    assert not monitor.see(12, {**HEALTHY, name: value})
    assert monitor.said == {"non-finite": 11}


def test_a_first_row_can_be_lost_already() -> None:
    assert Monitor().see(1, {**HEALTHY, "d_loss": math.nan})


def test_columns_that_an_older_version_did_not_keep_say_nothing() -> None:
    unknown = dict.fromkeys(("penalty", "g_gradient", "spread"), math.nan)
    assert run_of(unknown) == {"non-finite"}  # they were known before
    monitor = Monitor()
    assert not spoken(monitor, unknown, range(10, 9001, 10))
    assert not spoken(monitor, {}, range(9010, 10_001, 10))
    assert spoken(monitor, {"spread": 0.1}, range(10_010, 12_001, 10))


# ---- runs --------------------------------------------------------------------------------------


def rows_of(name: str) -> list[tuple[int, dict[str, float]]]:
    columns = read_metrics(RECORDED / f"{name}.csv")
    return [
        (int(step), {metric: columns[metric][i] for metric in METRICS})
        for i, step in enumerate(columns["step"])
    ]


def replay(name: str, every: int = 1) -> Monitor:
    monitor = Monitor()
    for step, values in rows_of(name)[::every]:
        monitor.see(step, values)
    return monitor


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(
    "preset", ["mlp-leaky", "mlp-leaky-bn", "mlp-batchnorm", "goodfellow2014", "dcgan-radford"]
)
def test_recorded_healthy_runs_raise_nothing(preset: str, every: int) -> None:
    """The first steps on MNIST, where D is far ahead and samples are all alike for a while."""
    assert not replay(preset, every).said


def test_a_recorded_ill_run_is_found() -> None:
    """The paper's model with an Adam that its D is too fast with; of an older version."""
    assert set(replay("goodfellow2014-adam").said) == {"strong-d"}


@pytest.mark.parametrize("stop", [1, 7, 60, 90])
def test_the_rows_are_all_that_a_monitor_knows(stop: int) -> None:
    """One that is shown the rows of another's life goes on as that one would have."""
    rows = rows_of("goodfellow2014-adam")
    straight, resumed = Monitor(), Monitor()
    for step, values in rows[:stop]:
        straight.see(step, values)
        resumed.see(step, values)
    said = [(straight.see(*row), resumed.see(*row)) for row in rows[stop:]]
    assert all(a == b for a, b in said)
    assert straight.said == resumed.said


# ---- spread ------------------------------------------------------------------------------------


def ring(modes: list[int], m: int = 128, std: float = 0.01, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    angles = np.array(modes)[draw.integers(0, len(modes), m)] * math.pi / 4
    return np.stack([np.cos(angles), np.sin(angles)], 1) + draw.normal(0, std, (m, 2))


EIGHT = list(range(8))


def spread_of(fakes: np.ndarray, x: np.ndarray) -> float:
    return float(spread(fakes, x, get_backend("numpy", "float64")))


def test_spread_is_the_ratio_of_geometric_mean_distances() -> None:
    draw = np.random.default_rng(0)
    batches = draw.normal(size=(2, 20, 3, 5)) * np.array([1.0, 3.0])[:, None, None, None]
    means = []
    for batch in batches:
        flat = batch.reshape(20, -1)
        pairs = [(i, j) for i in range(20) for j in range(20) if i != j]
        means.append(np.mean([math.log(np.linalg.norm(flat[i] - flat[j])) for i, j in pairs]))
    assert spread_of(*batches) == pytest.approx(math.exp(means[0] - means[1]), rel=1e-12)


@pytest.mark.parametrize(
    ("modes", "low", "high"),
    [(EIGHT, 0.9, 1.1), ([0], 0.0, 0.03), ([0, 4], 0.1, 0.3), ([0, 3, 5], 0.3, 0.6)],
)
def test_spread_sees_modes_that_are_missing(modes: list[int], low: float, high: float) -> None:
    fakes, x = ring(modes, seed=1), ring(EIGHT)
    assert low < spread_of(fakes, x) < high


def test_spread_looks_at_the_first_of_very_many() -> None:
    fakes, x = ring([0, 3], m=1500), ring(EIGHT, m=1300)
    assert spread_of(fakes, x) == spread_of(fakes[:1024], x[:1024])
    assert spread_of(fakes[:1000], x[:1000]) != spread_of(fakes[:900], x[:900])


def test_standard_deviations_would_not() -> None:
    fakes, x = ring([0, 4]), ring(EIGHT)
    assert math.sqrt(fakes.var(0).sum() / x.var(0).sum()) > 0.95


def test_spread_has_no_place_and_no_unit() -> None:
    fakes, x = ring(EIGHT, std=0.1), ring(EIGHT, seed=2)
    known = spread_of(fakes, x)
    assert spread_of(7 * fakes - 5, 7 * x + 3) == pytest.approx(known)
    assert spread_of(3 * fakes, x) == pytest.approx(3 * known)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_spread_is_always_a_number(dtype: str) -> None:
    some, one = ring(EIGHT).astype(dtype), np.ones((128, 2), dtype)
    assert spread_of(one, some) < 1e-3
    assert spread_of(one, one) == 1.0
    assert spread_of(some[:1], some[:1]) == 1.0
    for fakes in (some * dtype_scale(dtype), some / dtype_scale(dtype)):
        assert math.isfinite(spread_of(fakes, some))
    assert math.isfinite(spread_of(some, one))


def dtype_scale(dtype: str) -> float:
    return 1e10 if dtype == "float32" else 1e100


def test_spread_of_images_on_every_backend(open_backend: Callable[..., object]) -> None:
    backend = open_backend("float32")
    draw = np.random.default_rng(0)
    fakes, x = draw.normal(size=(2, 16, 5, 4, 3)).astype(np.float32)
    there = [backend.from_host(a) for a in (fakes, x)]  # type: ignore[attr-defined]
    found = float(spread(*there, backend))  # type: ignore[arg-type]
    assert found == pytest.approx(spread_of(fakes.astype(float), x.astype(float)), rel=1e-5)
