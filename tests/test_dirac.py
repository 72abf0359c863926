"""The Dirac-GAN: the library's own dynamics against theory and against a plain simulation."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinygan import make_objective

ROOT = Path(__file__).resolve().parent.parent
H = 0.2


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dirac_gan", ROOT / "examples/dirac_gan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dirac = load_example()
Rules, play = dirac.Rules, dirac.play
each_game = pytest.mark.parametrize("name", dirac.GALLERY)


def radius(path: np.ndarray) -> float:
    return float(np.hypot(*path[-1]))


# ---- an oracle that shares no line with the library -------------------------------------------


def sigmoid(s: float) -> float:
    return 1.0 / (1.0 + math.exp(-s))


# s = psi theta, D's score of the fake -> (a, b) of d theta = a psi, d psi = -b theta - friction
PULLS = {
    "minimax": lambda s: (sigmoid(s), sigmoid(s)),
    "non-saturating": lambda s: (sigmoid(-s), sigmoid(s)),
    "lsgan": lambda s: (1.0 - 2.0 * s, 1.0 + 2.0 * s),
    "hinge": lambda s: (1.0, float(s > -1.0)),
    "wgan": lambda s: (1.0, 1.0),
}


def friction(rules, psi: float) -> float:
    if rules.penalty == "gp":
        return 2.0 * rules.weight * (abs(psi) - 1.0) * math.copysign(1.0, psi)
    return rules.weight * psi


def simulate(rules, order: str, steps: int) -> np.ndarray:
    theta, psi = 1.0, -1.0
    path, pulls, c = [(theta, psi)], PULLS[rules.objective], rules.clip or math.inf
    turns = {"simultaneous": ["GD"], "alternating": ["G", "D"], "paper": ["D", "G"]}[order]
    for who in turns * steps:
        a, b = pulls(psi * theta)
        moved = psi - H * (b * theta + friction(rules, psi))
        theta += H * a * psi if "G" in who else 0.0
        psi = max(-c, min(c, moved)) if "D" in who else psi
        path.append((theta, psi))
    return np.array(path[:: len(turns)])


@pytest.mark.parametrize("order", ["simultaneous", "alternating", "paper"])
@each_game
def test_the_librarys_path_is_the_plain_simulations(name, order):
    rules = dirac.GALLERY[name]
    ours, plain = play(rules, order, H, 200), simulate(rules, order, 200)
    np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_a_clip_holds_psi_and_not_the_bias_of_least_squares(order):
    rules = Rules("lsgan", clip=0.3)
    ours, plain = play(rules, order, H, 200), simulate(rules, order, 200)
    np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("rules", "simultaneous", "alternating"),
    [
        (Rules("minimax"), "3.097", "1.421"),
        (Rules("non-saturating"), "0.640", "0.284"),
        (Rules("minimax", "r1", 0.3), "2.6e-06", "2.3e-07"),
    ],
)
def test_radii_after_500_steps(rules, simultaneous, alternating):
    digits = ".1e" if "e" in simultaneous else ".3f"
    assert format(radius(play(rules, "simultaneous")), digits) == simultaneous
    assert format(radius(play(rules, "alternating")), digits) == alternating


@pytest.mark.parametrize("order", ["simultaneous", "paper"])
@pytest.mark.parametrize(
    ("rules", "alternating"),
    [
        (Rules("minimax"), 1.421),
        (Rules("non-saturating"), 0.284),
        (Rules("minimax", "r1", 0.3), 2.3e-7),
    ],
)
def test_another_order_is_told_by_its_radius(rules, alternating, order):
    assert abs(radius(play(rules, order)) / alternating - 1.0) > 4e-3


# ---- eigenvalues ---------------------------------------------------------------------------


def both(a: complex, b: complex) -> list[complex]:
    return sorted([a, b], key=lambda value: (value.imag, value.real))


def r1(gamma: float) -> list[complex]:
    root = np.emath.sqrt(gamma**2 / 4.0 - 0.25)
    return both(complex(-gamma / 2.0 + root), complex(-gamma / 2.0 - root))


EIGENVALUES = [
    (Rules("minimax"), both(0.5j, -0.5j)),
    (Rules("non-saturating"), both(0.5j, -0.5j)),
    (Rules("lsgan"), both(1j, -1j)),
    (Rules("hinge"), both(1j, -1j)),
    (Rules("wgan"), both(1j, -1j)),
    (Rules("wgan", clip=1.0), both(1j, -1j)),
    (Rules("wgan", "gp-one-sided", 10.0), both(1j, -1j)),
    *[(Rules("minimax", "r1", gamma), r1(gamma)) for gamma in (0.1, 0.3, 0.9, 2.0)],
    (Rules("non-saturating", "r2", 0.3), r1(0.3)),
    (Rules("wgan", "r1", 2.5), both(-0.5, -2.0)),
    (Rules("wgan", "r1", 1e4), both(-1e-4, -1e4)),  # steep, but no jump
]


@pytest.mark.parametrize(("rules", "expected"), EIGENVALUES)
def test_eigenvalues_of_the_librarys_gradients(rules, expected):
    np.testing.assert_allclose(both(*map(complex, dirac.measured(rules))), expected, atol=1e-8)
    np.testing.assert_allclose(both(*map(complex, dirac.derived(rules))), expected, atol=1e-12)


@pytest.mark.parametrize("weight", [1e-6, 0.02, 0.5, 100.0])
def test_a_jump_is_seen_whatever_its_size(weight):
    assert np.isnan(dirac.measured(Rules("wgan", "gp", weight))).all()


def test_two_sided_gp_has_no_jacobian_at_the_equilibrium():
    """The penalty pushes psi away from 0 on both sides: the field jumps there."""
    rules = Rules("wgan", "gp", 0.5)
    assert np.isnan(dirac.measured(rules)).all()
    game = dirac.dirac_gan(rules)
    assert dirac.field(game, 0.0, 1e-9)[1] == pytest.approx(1.0)
    assert dirac.field(game, 0.0, -1e-9)[1] == pytest.approx(-1.0)


def with_G_ascending(game):
    """A mistake: G climbs its loss."""
    generator = game.objective.generator

    def wrong(fake, cache):
        loss, d = generator(fake, cache)
        return -loss, -d

    game.objective = game.objective._replace(generator=wrong)
    return game


def test_a_G_of_the_wrong_sign_is_told_by_eigenvalues_and_radius(monkeypatch):
    rightly = dirac.dirac_gan
    monkeypatch.setattr(dirac, "dirac_gan", lambda rules: with_G_ascending(rightly(rules)))
    values = dirac.measured(Rules("minimax"))
    np.testing.assert_allclose(sorted(values.real), [-0.5, 0.5], atol=1e-8)  # a saddle
    np.testing.assert_allclose(values.imag, 0.0, atol=1e-8)
    assert radius(play(Rules("minimax"), "simultaneous")) > 3.5  # not 3.097


def test_halved_losses_are_another_game(monkeypatch):
    monkeypatch.setattr(dirac, "make_objective", lambda name, halved: make_objective(name))
    np.testing.assert_allclose(
        np.abs(dirac.measured(Rules("minimax"))), math.sqrt(0.5 * 0.25), atol=1e-8
    )


# ---- what the chapter derives ----------------------------------------------------------------


@pytest.mark.parametrize("name", PULLS)
def test_how_the_field_changes_the_distance(name):
    """theta dtheta + psi dpsi = s (a - b): circles, slow spirals inwards, the hinge's corner."""
    game = dirac.dirac_gan(Rules(name))
    law = {
        "non-saturating": lambda s: -s * np.tanh(s / 2.0),
        "lsgan": lambda s: -4.0 * s * s,
        "hinge": lambda s: s if s < -1.0 else 0.0,
    }.get(name, lambda s: 0.0)
    for theta, psi in np.random.default_rng(0).uniform(-2.0, 2.0, (40, 2)):
        along = np.dot([theta, psi], dirac.field(game, theta, psi))
        assert along == pytest.approx(law(theta * psi), abs=1e-12)


def one_step(rules, order: str) -> np.ndarray:
    """The matrix of one step near the equilibrium."""
    e = 1e-6
    columns = [play(rules, order, H, 1, start)[1] / e for start in ((e, 0.0), (0.0, e))]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    ("rules", "a", "gamma"),
    [
        (Rules("minimax"), 0.5, 0.0),
        (Rules("minimax", "r1", 0.3), 0.5, 0.3),
        (Rules("non-saturating", "r1", 0.04), 0.5, 0.04),
        (Rules("wgan"), 1.0, 0.0),
        (Rules("wgan", "r1", 0.3), 1.0, 0.3),
    ],
)
def test_moduli_of_one_step(rules, a, gamma):
    """Simultaneous sqrt(1 - h gamma + h^2 a^2), alternating sqrt(1 - h gamma)."""
    simultaneous = np.abs(np.linalg.eigvals(one_step(rules, "simultaneous")))
    alternating = np.abs(np.linalg.eigvals(one_step(rules, "alternating")))
    np.testing.assert_allclose(simultaneous, math.sqrt(1 - H * gamma + (H * a) ** 2), atol=1e-6)
    np.testing.assert_allclose(alternating, math.sqrt(1 - H * gamma), atol=1e-6)


def test_simultaneous_R1_needs_a_weight_above_h_over_four():
    for gamma, shrinks in ((0.9 * H / 4, False), (1.1 * H / 4, True)):
        path = play(Rules("minimax", "r1", gamma), "simultaneous", start=(0.01, 0.0))
        assert (radius(path) < 0.01) == shrinks


def test_wasserstein_grows_by_the_same_factor_at_every_simultaneous_step():
    radii = np.hypot(*play(Rules("wgan"), "simultaneous").T)
    np.testing.assert_allclose(radii[1:] / radii[:-1], math.sqrt(1.0 + H * H), rtol=1e-12)


def test_wasserstein_stays_on_an_ellipse_when_alternating():
    theta, psi = play(Rules("wgan"), "alternating").T
    np.testing.assert_allclose(theta**2 + psi**2 + H * theta * psi, 1.8, rtol=1e-12)
    theta, psi = play(Rules("wgan"), "paper").T
    np.testing.assert_allclose(theta**2 + psi**2 - H * theta * psi, 2.2, rtol=1e-12)


@pytest.mark.parametrize(("name", "pull"), [("non-saturating", 1.0), ("lsgan", 8.0)])
def test_the_slow_spiral_and_the_ring_where_it_ends(name, pull):
    """d r²/dt = -pull r⁴/8, against a growth of h a² r² in simultaneous play."""
    a = 0.5 if name == "non-saturating" else 1.0
    steps = 2000
    alternating = radius(play(Rules(name), "alternating", H, steps))
    assert alternating == pytest.approx((0.5 + pull * H * steps / 8.0) ** -0.5, rel=0.04)
    ring = np.hypot(*play(Rules(name), "simultaneous", H, steps)[-200:].T).mean()
    assert ring == pytest.approx(math.sqrt(8.0 * H * a * a / pull), rel=0.02)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_clipping_and_gp_neither_arrive_nor_leave(order):
    for rules in (Rules("wgan", clip=1.0), Rules("wgan", "gp", 0.5)):
        radii = np.hypot(*play(rules, order, H, 2000)[-1000:].T)
        assert 0.8 < radii.min() < radii.max() < 2.0


# ---- the program -----------------------------------------------------------------------------


def test_the_example_draws_and_prints(tmp_path, capsys):
    picture = tmp_path / "one.png"
    words = ["--objective", "minimax", "--penalty", "r1", "--order", "alternating"]
    dirac.main([*words, "--out", str(picture)])
    assert picture.stat().st_size > 10_000
    assert "minimax + r1               -0.1500 ± 0.4770i" in capsys.readouterr().out


def test_the_chapter_shows_what_the_example_prints(capsys):
    orders = ["simultaneous", "alternating"]
    paths = {(n, o): play(rules, o) for n, rules in dirac.GALLERY.items() for o in orders}
    dirac.print_table(dirac.GALLERY, orders, paths)
    page = (ROOT / "docs/dirac-gan.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rpartition("phase portraits")[0] in page


def test_a_game_that_flies_apart_ends_early():
    path = play(Rules("wgan", "gp", 10.0), "simultaneous")
    assert len(path) < 500
    assert np.isfinite(path).all()
