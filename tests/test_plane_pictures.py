"""Pictures of the plane: D's surface, G's arrows and the best D against oracles; files; no harm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from tinygan import SGD, Game, Network, Noise, get_backend, make_objective
from tinygan.data.points import Mixture, PointBatches, PointSet
from tinygan.data.worlds import load_world, pair_mixture, ring_mixture
from tinygan.gan import ORDERS
from tinygan.metrics.density import best_discriminator, blurred_mixture, blurred_samples
from tinygan.nn import Dense, LeakyReLU, Pack, Sequential, Tanh
from tinygan.run import plane
from tinygan.run.pictures import write_animation
from tinygan.run.plane import SIDE, PlanePicture, View, write_points

RING = load_world("ring", 4000)
MOONS = load_world("moons", 4000)


def make_game(
    data: PointSet, objective: str = "non-saturating", packing: int = 1, **options: object
) -> Game:
    """A small smooth game in float64, so that differences can be taken."""
    backend = get_backend("numpy", "float64")
    noise = Noise(3, backend)
    G = Network(Sequential(Dense(2, 8), LeakyReLU(0.2), Dense(8, 2)), (2,), backend, "G", noise)
    first = [Pack(packing)] if packing > 1 else []
    body = Sequential(*first, Dense(2 * packing, 9), Tanh(), Dense(9, 1))
    D = Network(body, (2,), backend, "D", noise)
    D.parameters += noise.normal("test", D.parameters.shape, std=0.5)
    m = 12 * packing
    return Game(
        G,
        D,
        make_objective(objective, **options),
        lambda: noise.normal("z", (m, 2)),
        PointBatches(data.points, m, noise),
        noise,
    )


def logits_by_hand(game: Game, points: np.ndarray, packing: int) -> np.ndarray:
    """D at packs of points that follow one another."""
    first, _, last = game.D.body.layers[-3:]
    packs = points.reshape(len(points) // packing, -1)
    return (np.tanh(packs @ first.W + first.b) @ last.W + last.b)[:, 0]


# ---- what D says -------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [1, 2, 3])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_surface_is_d_at_copies_of_each_place(packing, flipped):
    game = make_game(RING, packing=packing, flipped=flipped)
    picture = PlanePicture(RING, game, packing)
    surface = picture.surface()
    assert surface.shape == (SIDE, SIDE)
    x, y = picture.view.axis(0), picture.view.axis(1)
    for i, j in [(0, 0), (0, 95), (95, 0), (40, 71)]:
        logit = logits_by_hand(game, np.array([[x[j], y[i]]] * packing), packing)[0]
        expected = 1.0 / (1.0 + math.exp(logit if flipped else -logit))
        assert surface[i, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", ["lsgan", "hinge", "wgan"])
def test_a_score_is_shown_as_it_is(objective):
    game = make_game(RING, objective)
    picture = PlanePicture(RING, game)
    places = picture.view.places()
    expected = logits_by_hand(game, places, 1).reshape(SIDE, SIDE)
    np.testing.assert_allclose(picture.surface(), expected, rtol=1e-12)
    samples = np.random.default_rng(0).normal(size=(600, 2))
    real = logits_by_hand(game, RING.points[:600].astype(float), 1).mean()
    fake = logits_by_hand(game, samples, 1).mean()
    where = {"lsgan": 0.5, "hinge": 0.0, "wgan": 0.5 * (real + fake)}[objective]
    assert picture.threshold(samples) == pytest.approx(where, rel=1e-9)


def test_samples_that_make_no_pack_are_seen_more_than_once(tmp_path):
    game = make_game(RING, "wgan", packing=3)
    samples = np.array([[0.2, 0.1], [-0.3, 0.4]])
    real = logits_by_hand(game, RING.points[:3].astype(float), 3)[0]
    fake = logits_by_hand(game, samples[[0, 1, 0]], 3)[0]
    picture = PlanePicture(RING, game, 3)
    assert picture.threshold(samples) == pytest.approx(0.5 * (real + fake), rel=1e-12)
    picture(tmp_path / "f.png", samples)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_smoothed_labels_move_the_line_of_indecision_and_the_shades(t, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plane, "shade", lambda *_: drawn.append(_[-1]))
    picture = PlanePicture(MOONS, make_game(MOONS, real_target=t))
    picture(tmp_path / "f.png", np.zeros((8, 2)))
    assert picture.threshold(np.zeros((8, 2))) == pytest.approx(t / 2, rel=1e-12)
    assert drawn[0][4] == pytest.approx(t / 2, abs=1e-6)  # between orange and blue
    assert drawn[0][-1] == pytest.approx(t, abs=2e-6)
    assert (np.diff(drawn[0]) > 0.0).all()


def loss_of_G(game: Game, points: np.ndarray, objective: str, packing: int) -> float:
    """G's loss as the papers write it."""
    logits = logits_by_hand(game, points, packing)
    return float(
        {
            "minimax": lambda: -np.logaddexp(0.0, logits).mean(),
            "non-saturating": lambda: np.logaddexp(0.0, -logits).mean(),
            "lsgan": lambda: ((logits - 1.0) ** 2).mean(),
            "hinge": lambda: -logits.mean(),
            "wgan": lambda: -logits.mean(),
        }[objective]()
    )


@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("objective", ["minimax", "non-saturating", "lsgan", "hinge", "wgan"])
def test_arrows_point_down_the_loss(objective, packing):
    game = make_game(RING, objective, packing)
    points, h = np.random.default_rng(1).normal(size=(6, 2)), 1e-6
    pull = PlanePicture(RING, game, packing).pull(points)
    expected = np.zeros_like(points)
    for place in np.ndindex(*points.shape):
        step = np.zeros_like(points)
        step[place] = h
        up, down = (loss_of_G(game, points + s * step, objective, packing) for s in (1, -1))
        expected[place] = -(up - down) / (2.0 * h)
    np.testing.assert_allclose(pull, expected, atol=1e-8)
    # the control: arrows up the loss, or of the wrong fakes of a pack, would not agree
    assert not np.allclose(-pull, expected, atol=1e-4)
    if packing > 1:
        assert not np.allclose(pull[[1, 0, 3, 2, 5, 4]], expected, atol=1e-4)


def test_training_does_not_notice(tmp_path):
    """Bit for bit the same weights, gradients and logits, drawn or not."""

    def play(draw: bool) -> np.ndarray:
        game = make_game(RING)
        optimisers = [SGD(net, 0.1) for net in (game.D, game.G)]
        picture = PlanePicture(RING, game)
        for step in range(1, 6):
            game.noise.step = step
            ORDERS["simultaneous"](game, optimisers[0].step, optimisers[1].step)
            if draw:
                picture(tmp_path / f"step_{step}.png", np.zeros((40, 2)) + step)
        parts = (game.D.parameters, game.G.parameters, game.D.gradients, game.G.gradients)
        return np.concatenate([*parts, game.fake_logits[:, 0]])

    np.testing.assert_array_equal(play(True), play(False))


# ---- the best D --------------------------------------------------------------------------------


def test_blurred_densities_are_densities():
    """They integrate to one and have the variance of the sum of both parts."""
    x = np.linspace(-8.0, 8.0, 801)
    mixture = Mixture(np.array([[-2.0, 0.5], [1.0, -0.5]]), std=0.3)
    p = blurred_mixture(mixture, x, x, width=0.4)
    cell = (x[1] - x[0]) ** 2
    assert p.sum() * cell == pytest.approx(1.0, abs=1e-9)
    mean_x = (p.sum(axis=0) * x).sum() * cell  # columns are x
    assert mean_x == pytest.approx(-0.5, abs=1e-9)
    variance = (p.sum(axis=0) * (x - mean_x) ** 2).sum() * cell
    assert variance == pytest.approx(0.3**2 + 0.4**2 + 1.5**2, abs=1e-6)
    q = blurred_samples(mixture.means, x, x, width=0.5)
    np.testing.assert_allclose(q, p, rtol=1e-9)  # sqrt(.3² + .4²) = .5


def test_samples_of_the_mixture_lead_to_its_blurred_density():
    """The kernel estimate is unbiased for p blurred alike, not for p: why both are blurred."""
    mixture, width, n = pair_mixture(), 0.3, 40_000
    x = np.linspace(-2.5, 2.5, 25)
    samples = load_world("gaussians", n).points
    q = blurred_samples(samples, x, x, width)
    p = blurred_mixture(mixture, x, x, width)
    # the variance of a kernel estimate: E K² / n, and K² is a narrower bell
    error = np.sqrt(blurred_mixture(mixture, x, x, width / 2**0.5) / (4 * np.pi * width**2) / n)
    seen = p > 1e-3
    assert 0.8 < (((q - p) / error)[seen]).std() < 1.2
    assert (np.abs(q - p) < 5.0 * error)[seen].all()
    sharp = blurred_mixture(mixture, x, x, 0.0)
    assert (np.abs(q - sharp) > 5.0 * error)[seen].any()  # the control


def test_one_bell_by_hand():
    x, y = np.array([1.0]), np.array([-2.0])
    density = blurred_samples(np.array([[0.0, 0.0]]), x, y, 2.0)
    assert density[0, 0] == pytest.approx(math.exp(-5.0 / 8.0) / (8.0 * math.pi))


@pytest.mark.parametrize("packing", [1, 2, 4])
def test_the_best_discriminator(packing):
    p, q = np.array([0.1, 0.2, 0.3, 1e-200, 0.0, 0.0]), np.array([0.4, 0.2, 0.0, 1e-200, 1.0, 0.0])
    best = best_discriminator(p, q, packing)
    logit = packing * math.log(0.1 / 0.4)  # of a product of densities: the sum of the logits
    expected = [1.0 / (1.0 + math.exp(-logit)), 0.5, 1.0, 0.5, 0.0]
    np.testing.assert_allclose(best[:5], expected, rtol=1e-12)
    assert math.isnan(best[5])


def test_the_best_d_cannot_tell_perfect_fakes_and_says_nothing_where_there_is_nothing():
    picture = PlanePicture(RING, make_game(RING))
    perfect, lost = load_world("ring", 2500, seed=5).points, np.tile([[0.5, 0.5]], (2500, 1))
    x, y, best = picture.best(ring_mixture(), perfect)
    told = best[np.isfinite(best)]
    assert 0.01 < told.size / best.size < 0.2
    assert 0.2 < told.min() < told.max() < 0.8
    _, _, best = picture.best(ring_mixture(), lost)
    at = {(1.0, 0.0): 1.0, (0.0, -1.0): 1.0, (0.5, 0.5): 0.0}
    for (px, py), value in at.items():
        i, j = np.abs(y - py).argmin(), np.abs(x - px).argmin()
        assert best[i, j] == pytest.approx(value, abs=1e-3)
    assert math.isnan(best[np.abs(y).argmin(), np.abs(x).argmin()])  # the middle of the ring


def test_the_best_d_of_packs_sees_two_points_of_a_place():
    """p² / (p² + q²), of what one point says: p / (p + q)."""
    fakes = load_world("ring", 2500, seed=5).points * 1.01
    one, two = (
        PlanePicture(RING, make_game(RING, packing=packing), packing).best(ring_mixture(), fakes)[2]
        for packing in (1, 2)
    )
    np.testing.assert_allclose(two, one**2 / (one**2 + (1.0 - one) ** 2), rtol=1e-9)
    assert np.nanmax(np.abs(two - one)) > 0.05


def test_the_best_d_of_a_game_with_instance_noise_is_that_of_noisy_points():
    """Data of (0, 0) and (1, 0), fakes at (0, 0): by hand, both as bells of the noise's width."""
    game, width = make_game(RING), 0.8
    game.instance_noise = width
    mixture = Mixture(np.array([[0.0, 0.0], [1.0, 0.0]]), std=0.01)
    x, y, best = PlanePicture(RING, game).best(mixture, np.zeros((2500, 2)))
    i, j = np.abs(y).argmin(), np.abs(x - 0.7).argmin()
    near, far = (math.exp(-0.5 * ((x[j] - at) ** 2 + y[i] ** 2) / width**2) for at in (0.0, 1.0))
    p = 0.5 * (near + far)
    assert best[i, j] == pytest.approx(p / (p + near), abs=2e-3)


# ---- the picture -------------------------------------------------------------------------------


def test_a_frame_is_a_file_and_its_pixels(tmp_path):
    path = tmp_path / "step_0000300.png"
    game = make_game(RING)
    game.noise.step = 300
    picture = PlanePicture(RING, game)(path, RING.points[:800])
    assert picture.dtype == np.uint8
    with Image.open(path) as file:
        np.testing.assert_array_equal(np.asarray(file), picture)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written beside it
    known, unknown = picture.shape, PlanePicture(MOONS, make_game(MOONS))(path, MOONS.points).shape
    assert known[1] > 1.5 * known[0]  # two panels where the density is known
    assert unknown[1] < unknown[0]


def test_up_is_up_and_right_is_right(tmp_path):
    """D believes in what lies above: blue above, orange below."""
    game = make_game(MOONS)
    game.D.body.layers[-3].W[...] = 0.0
    game.D.body.layers[-3].W[1, 0] = 1.0
    for layer in (game.D.body.layers[-3], game.D.body.layers[-1]):
        layer.b[...] = 0.0
    game.D.body.layers[-1].W[...] = 0.0
    game.D.body.layers[-1].W[0, 0] = 20.0
    pixels = PlanePicture(MOONS, game)(tmp_path / "f.png", MOONS.points[:9]).astype(int)
    height, width, _ = pixels.shape
    top, bottom = pixels[height // 6, width // 5], pixels[height * 5 // 6, width // 5]
    assert top[2] > top[0] + 40  # blue
    assert bottom[0] > bottom[2] + 40  # orange


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((1, 2)),
        np.full((2500, 2), 7.0),  # all at one place
        np.full((2500, 2), 1e20),  # all out of sight
        np.random.default_rng(0).normal(size=(2500, 2)) * 1e-9,
    ],
)
@pytest.mark.parametrize("objective", ["non-saturating", "wgan"])
def test_any_samples_can_be_drawn(tmp_path, samples, objective):
    picture = PlanePicture(RING, make_game(RING, objective))
    assert picture(tmp_path / "f.png", samples.astype(np.float32)).shape[2] == 3


def test_a_d_that_says_the_same_everywhere_can_be_drawn(tmp_path):
    for objective in ("minimax", "wgan"):
        game = make_game(RING, objective)
        game.D.parameters.fill(0.0)
        PlanePicture(RING, game)(tmp_path / "f.png", RING.points[:700])


def test_frames_become_an_animation(tmp_path):
    game = make_game(RING)
    picture = PlanePicture(RING, game)
    for step in range(4):
        game.noise.step = step
        picture(tmp_path / f"step_{step:07d}.png", (1.0 + 0.05 * step) * RING.points[:900])
    assert write_animation(tmp_path, tmp_path / "samples.gif") == 4
    with Image.open(tmp_path / "samples.gif") as film:
        assert film.n_frames == 4
        assert film.size == (840, 490)
    assert (tmp_path / "samples.gif").stat().st_size < 4 * 80_000


def test_the_view_holds_the_data_and_leaves_strays_out():
    points = np.random.default_rng(0).normal(size=(10_000, 2)) * [1.0, 0.1]
    points[0] = [1e3, 0.0]
    view = View.around(points)
    assert view.width < 12.0
    assert view.holds(points).mean() > 0.997
    assert not view.holds(points)[0]
    x0, x1, y0, y1 = view.extent
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert view.places().shape == (SIDE**2, 2)
    np.testing.assert_allclose(view.places()[SIDE + 2], [view.axis(0)[2], view.axis(1)[1]])


@pytest.mark.parametrize(
    "points",
    [
        MOONS.points,
        MOONS.points * 1e-5 + 1e9,
        np.zeros((1, 2)),
        np.full((5, 2), 3e30),
        np.array([[0.0, 5.0], [1e-300, 5.0]]),
    ],
)
def test_points_alone_are_drawn_in_their_own_numbers(tmp_path, points):
    picture = write_points(tmp_path / "points.png", points)
    assert picture.shape == (560, 560, 3)
    with Image.open(tmp_path / "points.png") as file:
        np.testing.assert_array_equal(np.asarray(file), picture)


def test_points_far_from_the_origin_are_no_single_dot():
    points = np.random.default_rng(0).normal(size=(300, 2))
    assert View.around(points + 1e11).width < 1.01 * View.around(points).width


def test_an_axis_without_width_has_a_view():
    view = View.around(np.array([[2.0, 2.0]]))
    assert view.width > 0.0
    assert view.extent[0] < 2.0 < view.extent[1]
