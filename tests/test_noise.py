"""Randomness as a function of (seed, purpose, step, sub, index)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygan.backend import Backend
from tinygan.errors import OptionError
from tinygan.noise import Noise

N = 100_000
relaxed = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
word = st.one_of(
    st.integers(0, 3), st.integers((1 << 64) - 4, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)
)


def of_numpy(key: tuple[int, ...], counter: tuple[int, ...], n: int) -> Any:
    """n words of numpy.random.Philox, low halves first."""
    generator = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    blocks = generator.random_raw((n + 1) // 2)
    halves = [blocks & np.uint64(0xFFFFFFFF), blocks >> np.uint64(32)]
    return np.stack(halves, axis=1).reshape(-1)[:n].astype(np.uint32)


def test_the_first_words_are_the_published_ones(backend: Backend) -> None:
    """Known answers of Random123 for philox4x64-10 with key and counter all ones."""
    ones = (1 << 64) - 1
    # NumPy and we advance the counter before the first block: start one below all ones.
    words = backend.philox((ones, ones), (ones - 1, ones, ones, ones), 8)
    halves = backend.to_host(words).astype(np.uint64)
    expected = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert [int(lo) | int(hi) << 32 for lo, hi in halves.reshape(4, 2)] == expected


@relaxed
@given(key=st.tuples(word, word), counter=st.tuples(word, word, word, word), n=st.integers(0, 70))
def test_words_are_those_of_numpy_philox(
    backend: Backend, key: tuple[int, int], counter: tuple[int, int, int, int], n: int
) -> None:
    words = backend.to_host(backend.philox(key, counter, n))
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, of_numpy(key, counter, n))


def test_a_long_stream_is_that_of_numpy_philox(backend: Backend) -> None:
    words = backend.to_host(backend.philox((1, 2), ((1 << 64) - 100, 5, 6, 7), 10_001))
    np.testing.assert_array_equal(words, of_numpy((1, 2), ((1 << 64) - 100, 5, 6, 7), 10_001))


def test_a_draw_depends_on_its_place_alone(backend: Backend) -> None:
    noise = Noise(5, backend, step=3, sub=1)
    first = backend.to_host(noise.words("z", 100))
    noise.normal("something else", (17,))
    np.testing.assert_array_equal(backend.to_host(noise.words("z", 100)), first)
    np.testing.assert_array_equal(backend.to_host(noise.words("z", 40)), first[:40])
    np.testing.assert_array_equal(backend.to_host(noise.at(3, 1).words("z", 100)), first)
    again = Noise(5, backend)
    again.step, again.sub = 3, 1
    np.testing.assert_array_equal(backend.to_host(again.words("z", 100)), first)


def test_different_places_give_independent_draws(backend: Backend) -> None:
    places = {
        "one": Noise(5, backend, 3, 1).normal("z", (N,)),
        "purpose": Noise(5, backend, 3, 1).normal("y", (N,)),
        "step": Noise(5, backend, 4, 1).normal("z", (N,)),
        "sub": Noise(5, backend, 3, 2).normal("z", (N,)),
        "seed": Noise(6, backend, 3, 1).normal("z", (N,)),
        "swapped": Noise(5, backend, 1, 3).normal("z", (N,)),
    }
    rows = np.array([backend.to_host(draw) for draw in places.values()], float)
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / math.sqrt(N)
    lagged = [np.corrcoef(rows[0][:-lag], rows[0][lag:])[0, 1] for lag in (1, 2, 4, 8)]
    assert np.abs(lagged).max() < 5 / math.sqrt(N)
    assert len(np.unique(rows)) > 0.99 * rows.size  # float32 values do coincide now and then


def test_normals_have_the_moments_of_a_normal(backend64: Backend) -> None:
    z = backend64.to_host(Noise(0, backend64).normal("z", (N,)))
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / N), power
    pairs = z.reshape(-1, 2)  # the two of a Box-Muller pair
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / math.sqrt(N / 2)
    assert abs(np.corrcoef((pairs**2).T)[0, 1]) < 5 / math.sqrt(N / 2)
    inside = [(np.abs(z) < t).mean() - math.erf(t / math.sqrt(2)) for t in (0.5, 1, 2, 3)]
    assert np.abs(inside).max() < 0.008
    scaled = backend64.to_host(Noise(0, backend64).normal("z", (N,), std=0.02))
    np.testing.assert_allclose(scaled, 0.02 * z, rtol=1e-13)


def test_normals_are_box_muller_on_pairs_of_words(backend64: Backend) -> None:
    noise = Noise(9, backend64, step=2)
    u = (backend64.to_host(noise.words("z", 6)).astype(float) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2 * np.log(u[0::2])), 2 * np.pi * u[1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    np.testing.assert_allclose(
        backend64.to_host(noise.normal("z", (5, 1))).reshape(-1), expected[:5], rtol=1e-13
    )


def test_uniforms_fill_their_range(backend64: Backend) -> None:
    u = backend64.to_host(Noise(1, backend64).uniform("u", (N,), -2.0, 6.0))
    assert -2.0 < u.min() < -1.999
    assert 5.999 < u.max() < 6.0
    assert abs(u.mean() - 2.0) < 5 * 8 / math.sqrt(12 * N)
    counts = np.histogram(u, 50, (-2.0, 6.0))[0]
    chi2 = ((counts - N / 50) ** 2 / (N / 50)).sum()
    assert chi2 < 49 + 5 * math.sqrt(98)


def test_the_unit_interval_is_open_and_rounded_uniforms_stay_in_range(
    open_backend: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend("float32")
    ends = backend.from_host(np.array([0, 0xFFFFFFFF], np.uint32))
    noise = Noise(0, backend)
    monkeypatch.setattr(noise, "words", lambda purpose, n: ends)
    low, high = backend.to_host(noise.unit("u", 2))
    assert 0.0 < low < high < 1.0
    values = backend.to_host(noise.uniform("u", (2,), -0.05, 0.05))
    assert values[0] >= np.float32(-0.05)
    assert values[1] <= np.float32(0.05)
    assert np.isfinite(backend.to_host(noise.normal("u", (2,)))).all()


@pytest.mark.parametrize("high", [1, 2, 3, 1000, 60_000, (1 << 31) - 1, 1 << 31])
def test_integers_fill_their_range(backend: Backend, high: int) -> None:
    i = backend.to_host(Noise(1, backend).integers("i", N, high))
    assert i.dtype == np.int64
    assert 0 <= i.min() <= i.max() < high
    assert abs(i.mean() - (high - 1) / 2) <= 5 * high / math.sqrt(12 * N)
    words = backend.to_host(Noise(1, backend).words("i", N))
    assert [int(w) * high >> 32 for w in words[:100]] == i[:100].tolist()
    if high <= 3:
        assert set(i.tolist()) == set(range(high))


@pytest.mark.parametrize("n", [1, 2, 7, 10_000])
def test_a_permutation_is_one(backend: Backend, n: int) -> None:
    order = backend.to_host(Noise(1, backend).permutation("p", n))
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_permutations_are_uniform(backend: Backend) -> None:
    counts: dict[tuple[int, ...], int] = {}
    for step in range(1200):
        order = tuple(backend.to_host(Noise(1, backend, step).permutation("p", 3)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((c - 200) ** 2 / 200 for c in counts.values()) < 5 + 5 * math.sqrt(10)


def test_both_dtypes_see_the_same_draws(open_backend: Callable[..., Backend]) -> None:
    single, double = open_backend("float32"), open_backend("float64")
    a, b = Noise(3, single, 7, 2), Noise(3, double, 7, 2)
    for draw in (
        lambda noise: noise.words("w", 1001),
        lambda noise: noise.integers("i", 1001, 60_000),
        lambda noise: noise.permutation("p", 1001),
        lambda noise: noise.normal("z", (7, 11)),
        lambda noise: noise.uniform("u", (7, 11), -0.3, 0.3),
    ):
        x, y = single.to_host(draw(a)), double.to_host(draw(b))
        np.testing.assert_array_equal(x, y.astype(x.dtype))
    assert a.normal("z", (3,)).dtype == np.float32
    assert b.normal("z", (3,)).dtype == np.float64


def test_normals_agree_with_numpy_to_rounding(open_backend: Callable[..., Backend]) -> None:
    """cos, log and sqrt of another library may differ in the last place of float64."""
    from tinygan.backend import get_backend

    host, here = get_backend("numpy", "float64"), open_backend("float64")
    expected = Noise(3, host).normal("z", (N,))
    given = here.to_host(Noise(3, here).normal("z", (N,)))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("q", [1, 51, 128, 205, 255, 256])
def test_dropout_keeps_q_of_256_and_its_expectation(backend: Backend, q: int) -> None:
    every_byte = np.arange(256, dtype=np.uint8).view(np.uint32)
    factor = backend.dropout_factor(backend.from_host(every_byte), q, out=backend.empty((16, 16)))
    values = backend.to_host(factor).reshape(-1)
    np.testing.assert_array_equal(values != 0, np.arange(256) < q)
    assert set(values.tolist()) <= {0.0, float(np.float32(256 / q))}
    assert abs(values.mean() - 1.0) < 1e-6  # over all bytes the mask has mean 1 exactly


def test_dropout_masks_keep_their_share(backend: Backend) -> None:
    words = Noise(0, backend, 5).words("mask", N // 4)
    factor = backend.to_host(backend.dropout_factor(words, 205, out=backend.empty((N,))))
    p = 205 / 256
    assert abs((factor != 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(backend: Backend, seed: int) -> None:
    with pytest.raises(OptionError, match=r"seed must lie in \[0, 2\^64\)"):
        Noise(seed, backend)


def test_the_largest_seed_is_taken(backend: Backend) -> None:
    assert Noise((1 << 64) - 1, backend).words("w", 3).shape == (3,)
