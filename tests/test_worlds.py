"""The worlds of two dimensions: as published, deterministic; and the user's own points."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tinygan.data.points import Mixture
from tinygan.data.worlds import WORLDS, load_world, read_points
from tinygan.errors import DataError

N = 20_000


@pytest.fixture(scope="module")
def worlds():
    return {name: load_world(name, N) for name in WORLDS}


@pytest.mark.parametrize("name", WORLDS)
def test_points_are_a_function_of_seed_and_index(worlds, name):
    data = worlds[name]
    assert data.name == name
    assert data.points.shape == (N, 2)
    assert data.points.dtype == np.float32
    assert (data.shift, data.scale) == (0.0, 1.0)
    np.testing.assert_array_equal(load_world(name, 300).points, data.points[:300])
    other = load_world(name, 300, seed=1).points
    assert (other != data.points[:300]).any(axis=1).all()
    # no two points alike by accident of the draw
    assert len(np.unique(data.points, axis=0)) > 0.95 * N


@pytest.mark.parametrize("name", WORLDS)
def test_the_last_bit_of_a_logarithm_does_not_show(worlds, name):
    """Points are multiples of 1e-6, so that another processor's rounding gives the same bytes."""
    points = worlds[name].points.astype(np.float64)
    np.testing.assert_array_equal(np.round(points, 6).astype(np.float32), worlds[name].points)


def test_the_draw_has_not_changed():
    first = {name: load_world(name, 1).points[0].tolist() for name in WORLDS}
    expected = {
        "ring": [-0.990357, 0.007257],
        "grid": [2.048216, -3.963716],
        "moons": [-0.042921, -0.520287],
        "swiss": [0.393218, 1.054777],
        "gaussians": [1.482159, 0.362843],
    }
    for name in WORLDS:
        np.testing.assert_allclose(first[name], expected[name], atol=1.5e-6)


# ---- the mixtures ------------------------------------------------------------------------------


def test_published_modes(worlds):
    ring, grid = worlds["ring"].mixture, worlds["grid"].mixture
    assert ring.std == 0.01
    np.testing.assert_allclose(np.hypot(*ring.means.T), 1.0, rtol=1e-15)
    np.testing.assert_allclose(np.degrees(np.arctan2(*ring.means[1][::-1])), 45.0)
    gaps = np.linalg.norm(ring.means - np.roll(ring.means, 1, axis=0), axis=1)
    np.testing.assert_allclose(gaps, 2.0 * math.sin(math.pi / 8))
    assert grid.std == 0.05
    assert sorted(map(tuple, grid.means)) == [
        (float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)
    ]
    assert {name for name in WORLDS if worlds[name].mixture} == {"ring", "grid", "gaussians"}


def residuals(points: np.ndarray, mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """The nearest mode of each point, and how far from its centre the point is, in std."""
    offsets = points[:, None].astype(np.float64) - mixture.means
    nearest = (offsets**2).sum(axis=2).argmin(axis=1)
    return nearest, offsets[np.arange(len(points)), nearest] / mixture.std


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_modes_are_equally_likely_and_round(worlds, name):
    data = worlds[name]
    nearest, z = residuals(data.points, data.mixture)
    modes = len(data.mixture.means)
    counts = np.bincount(nearest, minlength=modes)
    chi2 = ((counts - N / modes) ** 2 / (N / modes)).sum()
    assert chi2 < modes - 1 + 4.5 * math.sqrt(2.0 * (modes - 1))
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=4.5 / math.sqrt(N))
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=4.5 * math.sqrt(2.0 / N))
    share = (np.hypot(*z.T) < 3.0).mean()
    assert share == pytest.approx(1.0 - math.exp(-4.5), abs=4.5 * 0.105 / math.sqrt(N))


def test_the_pair_overlaps(worlds):
    """x has mean 0 and variance std² + 1, and a tenth of the points or so are in between."""
    points = worlds["gaussians"].points.astype(np.float64)
    np.testing.assert_allclose(points.var(axis=0), [1.25, 0.25], rtol=0.05)
    assert (np.abs(points[:, 0]) < 0.25).mean() == pytest.approx(0.0606, abs=0.01)


# ---- the curves --------------------------------------------------------------------------------


def test_moons_are_two_half_circles(worlds):
    points = worlds["moons"].points.astype(np.float64)
    upper = points - [-0.5, -0.25]  # centre of the upper circle
    lower = points - [0.5, 0.25]
    off = np.stack([np.hypot(*upper.T) - 1.0, np.hypot(*lower.T) - 1.0], axis=1)
    off[upper[:, 1] < -0.25, 0] = off[lower[:, 1] > 0.25, 1] = 9.0  # not on that half
    nearest = np.abs(off).argmin(axis=1)
    distance = off[np.arange(N), nearest]
    assert np.sqrt((distance**2).mean()) == pytest.approx(0.05, rel=0.05)
    assert np.abs(distance).max() < 0.3
    assert (nearest == 0).mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.03)


def test_swiss_roll_has_a_radius_that_grows_with_the_angle(worlds):
    points = worlds["swiss"].points.astype(np.float64)
    angle, radius = np.arctan2(*points.T[::-1]), np.hypot(*points.T)
    turns = angle[:, None] + 2.0 * np.pi * np.arange(4)
    off = radius[:, None] - turns / 7.0
    nearest = np.abs(off).argmin(axis=1)
    t = turns[np.arange(N), nearest]
    assert np.sqrt((off[np.arange(N), nearest] ** 2).mean()) == pytest.approx(0.05, rel=0.05)
    assert t.min() > 1.5 * np.pi - 0.5
    assert t.max() < 4.5 * np.pi + 0.5
    shares = np.histogram(t, bins=6, range=(1.5 * np.pi, 4.5 * np.pi))[0] / N
    np.testing.assert_allclose(shares, 1 / 6, atol=0.015)


@pytest.mark.parametrize(
    ("name", "n", "words"),
    [
        ("rnig", 9, r"unknown data 'rnig' \(did you mean ring\?\): expected one of ring, grid"),
        ("digits", 9, r"unknown data 'digits': expected one of .* FILE.npy with points \(N, 2\)"),
        ("ring", 0, "at least one point"),
    ],
)
def test_bad_names(name, n, words):
    with pytest.raises(DataError, match=words):
        load_world(name, n)


# ---- the user's own points ---------------------------------------------------------------------


def save(folder: Path, array: object, name: str = "own.npy") -> Path:
    np.save(folder / name, array, allow_pickle=True)
    return folder / name


@pytest.mark.parametrize("stretch", [1.0, 1e-200, 1e200, 3e6])
@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_any_scale_becomes_one_and_is_given_back(tmp_path, stretch, offset):
    rng = np.random.default_rng(5)
    own = stretch * (rng.normal(size=(500, 2)) * [3.0, 0.2] + offset)
    data = load_world(str(save(tmp_path, own)))
    assert data.name == "own.npy"
    assert data.mixture is None
    points = data.points.astype(np.float64)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-6)
    assert points.var(axis=0).mean() == pytest.approx(1.0, rel=1e-6)
    # one common scale: the ratio of the axes is the user's
    ratio = np.divide(*(own / stretch).std(axis=0))
    np.testing.assert_allclose(np.divide(*points.std(axis=0)), ratio, rtol=1e-6)
    back = points * data.scale + data.shift
    np.testing.assert_allclose(back, own, atol=1e-6 * np.abs(own).max())


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", ">f8", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_real_dtype_and_order(tmp_path, dtype, order):
    own = np.arange(40).reshape(20, 2).astype(dtype, order=order)
    data = read_points(save(tmp_path, own))
    assert data.points.dtype == np.float32
    np.testing.assert_allclose(data.points * data.scale + data.shift, own.astype(float), atol=1e-5)


def test_points_on_a_line_and_far_away(tmp_path):
    line = np.stack([np.arange(50.0), np.zeros(50)], axis=1)
    assert read_points(save(tmp_path, line)).points[:, 1].std() == 0.0
    far = np.random.default_rng(0).random((50, 2)) + 1e9
    data = read_points(save(tmp_path, far))
    assert data.points.std() == pytest.approx(1.0, rel=1e-5)
    assert data.scale == pytest.approx(math.sqrt(far.var(axis=0).mean()), rel=1e-5)


OBJECTS = np.array([[{}, 1], [2, 3]], dtype=object)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (OBJECTS, "holds Python objects, not numbers"),
        (np.arange(6.0), r"expected points of shape \(N, 2\), got \(6,\)"),
        (np.zeros((5, 3)), r"expected points of shape \(N, 2\), got \(5, 3\)"),
        (np.zeros((2, 5, 1)), r"got \(2, 5, 1\)"),
        (np.zeros((0, 2)), "0 point"),
        (np.zeros((1, 2)), "1 point.* too few"),
        (np.array([[1.0, math.nan], [math.inf, 0.0]]), "2 of its numbers are NaN or infinite"),
        (np.full((9, 2), 7.25), "all 9 points are equal"),
        (np.zeros((9, 2)), "all 9 points are equal"),
        (np.arange(18.0).reshape(9, 2) + 1e16, "too near to one another beside 1.0e[+]16"),
        (np.array([[1.7e308, 0.0], [-1.7e308, 1.0]]), "1.7e[+]308 is too large: divide"),
        (np.array([[2e300, 0.0], [0.0, 1.0]]), "2.0e[+]300 is too large: divide"),
        (np.zeros((9, 2), bool), "expected real numbers, got an array of bool"),
        (np.zeros((9, 2), complex), "expected real numbers, got an array of complex"),
        (np.array([["a", "b"]]), "expected real numbers, got an array of <U1"),
    ],
)
def test_arrays_that_are_no_points(tmp_path, array, words):
    path = save(tmp_path, array)
    with pytest.raises(DataError, match=words) as error:
        load_world(str(path))
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert text.count("own.npy") == 1
    assert "\n" not in text


def test_files_that_are_no_arrays(tmp_path):
    whole = save(tmp_path, np.random.default_rng(0).random((100, 2))).read_bytes()
    contents = {
        "text.npy": (b"1 2\n3 4\n", "not a .npy file; write it with numpy.save"),
        "empty.npy": (b"", "not a .npy file"),
        "half.npy": (whole[: len(whole) // 2], r"damaged or cut short \("),
        "header.npy": (whole[:50], "cut short"),
        "magic.npy": (whole[:8], "cut short"),
        "syntax.npy": (whole.replace(b"'<f8'", b"',f8'"), r"damaged or cut short \("),
        "torn.npy": (whole.replace(b"{'descr", b">'descr"), r"damaged or cut short \("),
        "huge.npy": (
            whole.replace(b"(100, 2), }" + 30 * b" ", b"(1" + 32 * b"0" + b", 2), }"),
            r"short \(.*too large",
        ),
        "index.npy": (whole.replace(b"'<f8'", b"()   "), "damaged"),
        "header_size.npy": (whole[:9] + b"*" + whole[10:] + 20_000 * b" ", "damaged"),
        "points.csv": (b"1,2\n", "not a .npy file"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            load_world(str(tmp_path / name))
    np.savez(tmp_path / "several.npz", a=np.zeros((9, 2)))
    with pytest.raises(DataError, match=r"not a \.npy file"):
        load_world(str(tmp_path / "several.npz"))
    with pytest.raises(DataError, match=r"missing\.npy: cannot be read: No such file"):
        load_world(str(tmp_path / "missing.npy"))
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(DataError, match=r"folder\.npy: cannot be read"):
        load_world(str(tmp_path / "folder.npy"))


class Trap:
    """Leaves a mark when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return spring, ()


def spring() -> str:
    Trap.sprung = True
    return "sprung"


def test_nothing_is_ever_unpickled(tmp_path):
    path = save(tmp_path, np.array([[Trap(), Trap()]], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        load_world(str(path))
    assert not Trap.sprung
    np.load(path, allow_pickle=True)  # the trap works
    assert Trap.sprung
