"""Mode coverage: a naive count, closed forms, samplers that must not pass, the command."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from fresh_run import fresh_run
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan.__main__ import main
from tinygan.data.points import Mixture
from tinygan.data.worlds import grid_mixture, pair_mixture, ring_mixture
from tinygan.errors import DataError, OptionError, ShapeError
from tinygan.metrics.modes import SAMPLES, ModeScore, mode_coverage, perfect_quality
from tinygan.run.atomic import write_json
from tinygan.run.evaluate import append_result, describe, read_results

RING = ring_mixture()


def draw(mixture: Mixture, n: int, spread: float = 1.0, modes: list[int] | None = None):
    """Samples around some of the modes (None: all), `spread` times too wide."""
    rng = np.random.default_rng(20171208)
    which = rng.choice(modes if modes is not None else len(mixture.means), n)
    return mixture.means[which] + spread * mixture.std * rng.normal(size=(n, 2))


def naive(samples, mixture):
    """PacGAN's count, one sample and one mode at a time."""
    counts = [0] * len(mixture.means)
    for x in samples:
        distances = [math.dist(x, mean) for mean in mixture.means]
        nearest = distances.index(min(distances))
        counts[nearest] += distances[nearest] / mixture.std < 3.0
    return tuple(counts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 10**6))
def test_equals_the_naive_count(n, modes, seed):
    rng = np.random.default_rng(seed)
    mixture = Mixture(rng.normal(size=(modes, 2)), std=0.2)
    samples = rng.normal(size=(n, 2))
    score = mode_coverage(samples, mixture)
    assert score.counts == naive(samples, mixture)
    assert score.samples == n
    assert score.covered == np.count_nonzero(score.counts)
    assert score.quality == sum(score.counts) / n


def test_batches_change_nothing(monkeypatch):
    samples = draw(RING, 2500, spread=2.0)
    whole = mode_coverage(samples, RING)
    monkeypatch.setattr("tinygan.metrics.modes.BATCH", 7)
    assert mode_coverage(samples, RING) == whole
    assert mode_coverage(samples[::-1].astype(np.float32).astype(float), RING).covered == 8


def test_other_dimensions_than_two():
    mixture = Mixture(np.eye(5), std=0.1)
    score = mode_coverage(np.eye(5)[[0, 0, 3]], mixture)
    assert score.counts == (2, 0, 0, 1, 0)


# ---- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("mixture", [RING, grid_mixture()])
def test_a_perfect_sampler(mixture):
    n = 40_000
    score, share = mode_coverage(draw(mixture, n), mixture), 1.0 - math.exp(-4.5)
    assert perfect_quality() == pytest.approx(share, rel=1e-15)
    assert score.covered == len(mixture.means)
    assert score.quality == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / n))
    # counts of K equally likely modes: E KL = (K - 1) / 2n, to first order
    assert score.reverse_kl == pytest.approx((len(mixture.means) - 1) / (2 * n), rel=1.5)


@pytest.mark.parametrize("spread", [0.5, 2.0, 4.0])
def test_a_sampler_of_another_width(spread):
    """The share within 3 sigma falls as 1 - exp(-(3 / spread)² / 2); width alone costs no mode."""
    score, share = mode_coverage(draw(RING, 40_000, spread), RING), perfect_quality(3.0 / spread)
    assert score.quality == pytest.approx(share, abs=4.5 * math.sqrt(share / 40_000))
    assert score.covered == 8


@pytest.mark.parametrize("kept", [[3], [0, 4], [1, 2, 3, 5, 6, 7]])
def test_a_collapsed_sampler(kept):
    """Quality does not notice; coverage and the divergence, log K/k for k modes, do."""
    score = mode_coverage(draw(RING, 40_000, modes=kept), RING)
    assert score.covered == len(kept)
    assert [i for i, count in enumerate(score.counts) if count] == kept
    assert score.quality == pytest.approx(perfect_quality(), abs=0.003)
    assert score.reverse_kl == pytest.approx(math.log(8 / len(kept)), abs=1e-3)


def test_the_divergence_by_hand():
    assert ModeScore((5, 5), 10).reverse_kl == 0.0
    assert ModeScore((10, 0), 10).reverse_kl == pytest.approx(math.log(2.0))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert ModeScore((3, 1), 900).reverse_kl == pytest.approx(expected)


# ---- samplers that must not pass ---------------------------------------------------------------


def test_samples_between_the_modes_are_not_good():
    between = np.stack([np.cos(np.linspace(0, 6, 900)), np.sin(np.linspace(0, 6, 900))], axis=1)
    score = mode_coverage(between[:10], RING)  # on the ring, near one mode
    assert score.covered == 1
    score = mode_coverage(between, RING)
    assert score.quality < 8 * 0.06 / (2 * math.pi) + 0.01  # arcs of 6 sigma, out of 2 pi
    nothing = mode_coverage(np.zeros((50, 2)), RING)
    assert (nothing.covered, nothing.quality, nothing.reverse_kl) == (0, 0.0, None)
    assert str(nothing) == "0 of 8 modes, 0.0 % good samples"


def test_one_good_sample_covers_a_mode_and_the_edge_is_outside():
    mixture = Mixture(np.array([[0.0, 0.0], [100.0, 0.0]]), std=1.0)
    assert mode_coverage([[3.0, 0.0]], mixture).covered == 0  # strictly less than 3 sigma
    assert mode_coverage([[2.999, 0.0]], mixture).counts == (1, 0)
    assert mode_coverage([[0.0, 2.5]] * 9, mixture, sigmas=2.0).covered == 0


def test_a_sample_belongs_to_one_mode_only():
    """The discs of the Gaussian pair overlap; counting a sample twice would exceed 100 %."""
    pair = pair_mixture()
    score = mode_coverage([[0.2, 0.0], [-0.2, 0.0], [0.3, 0.1]], pair)
    assert score.counts == (1, 2)
    assert mode_coverage(draw(pair, 5000), pair).quality <= 1.0


def test_narrow_modes_far_from_the_origin_keep_their_digits():
    mixture = Mixture(np.array([[1e6, 1e6], [1e6 + 1.0, 1e6]]), std=0.01)
    samples = draw(mixture, 4000)
    assert mode_coverage(samples, mixture).quality == pytest.approx(perfect_quality(), abs=0.008)


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (np.zeros((0, 2)), ShapeError, r"\(N, 2\), N at least 1, got \(0, 2\)"),
        (np.zeros((3, 3)), ShapeError, r"\(3, 3\)"),
        (np.zeros(4), ShapeError, r"\(4,\)"),
        ([[0.0, math.nan]], DataError, "1 values that are NaN"),
        ([["a", "b"]], DataError, "real numbers"),
    ],
)
def test_bad_samples(samples, error, words):
    with pytest.raises(error, match=words):
        mode_coverage(samples, RING)


@pytest.mark.parametrize("sigmas", [0.0, -1.0, math.nan, math.inf])
def test_bad_sigmas(sigmas):
    with pytest.raises(OptionError, match="sigmas must be positive and finite"):
        mode_coverage([[0.0, 0.0]], RING, sigmas)


# ---- packing: the table of docs/mode-collapse.md -------------------------------------------------


def total_variation_of_packs(p: list[float], q: list[float], m: int) -> float:
    """Between p^m and q^m on all packs, enumerated."""
    packs = itertools.product(range(len(p)), repeat=m)
    return 0.5 * sum(
        abs(math.prod(p[i] for i in pack) - math.prod(q[i] for i in pack)) for pack in packs
    )


def test_packing_tells_dropped_modes_from_unevenness():
    """Data uniform on [0, 1], cut where q1 or q2 changes: masses of [0, .2), [.2, .5), [.5, 1]."""
    data, dropped, uneven = [0.2, 0.3, 0.5], [0.0, 0.375, 0.625], [0.12, 0.18, 0.7]
    chapter = Path(__file__).parent.parent / "docs" / "mode-collapse.md"
    table = re.findall(r"^\| (\d) \| (0\.\d{4}) \| (0\.\d{4}) \|$", chapter.read_text(), re.M)
    assert [int(m) for m, *_ in table] == [1, 2, 3, 4, 8]
    for m, first, second in table:
        packing = int(m)
        assert float(first) == pytest.approx(1.0 - 0.8**packing, abs=5e-5)
        assert total_variation_of_packs(data, dropped, packing) == pytest.approx(
            float(first), abs=6e-5
        )
        assert total_variation_of_packs(data, uneven, packing) == pytest.approx(
            float(second), abs=6e-5
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(0, 10**6))
def test_no_generator_is_told_apart_better_than_one_that_drops_modes(modes, m, seed):
    """TV(p^m, q^m) <= 1 - (1 - TV(p, q))^m, and it never falls with m."""
    p, q = np.random.default_rng(seed).dirichlet(np.full(modes, 0.5), 2).tolist()
    alone, packed = (total_variation_of_packs(p, q, size) for size in (1, m))
    assert alone - 1e-12 <= packed <= 1.0 - (1.0 - alone) ** m + 1e-12


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run folder whose G is fresh, of a preset on a data set."""

    def make(preset: str, data: str, folder: str = "run", **others) -> Path:
        return fresh_run(tmp_path / folder, preset, data, **others)

    return make


def test_a_run_is_measured_and_the_figure_kept(make_run, capsys):
    run = make_run("ring-published", "gaussians")
    main(["evaluate", str(run), "--metric", "modes", "--backend", "numpy"])
    main(["evaluate", str(run), "--metric", "modes", "--seed", "1", "--backend", "numpy"])
    results = json.loads((run / "evaluation.json").read_text())
    assert [result["seed"] for result in results] == [0, 1]
    result = results[0]
    assert result["metric"] == "modes"
    assert result["step"] == 7
    assert result["samples"] == SAMPLES == 2500
    assert result["quality"] == sum(result["each_mode"]) / 2500
    assert result["covered"] == sum(count > 0 for count in result["each_mode"])
    out = capsys.readouterr().out
    assert f"{result['covered']} of 2 modes of gaussians" in out
    assert "checkpoint 7" in out
    assert describe(read_results(run / "evaluation.json")[1]) == out.splitlines()[1]


def test_it_stands_beside_other_figures(make_run, tmp_path):
    path = make_run("ring-published", "ring") / "evaluation.json"
    parzen = {"metric": "parzen", "points": 1, "data": "d", "split": "test", "mean": 1.0}
    parzen |= {"standard_error": 1.0, "sigma": 1.0, "samples": 1, "step": 1}
    append_result(path, parzen)
    main(["evaluate", str(path.parent), "--metric", "modes", "--backend", "numpy"])
    assert [result["metric"] for result in read_results(path)] == ["parzen", "modes"]


def one_line(capsys, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("preset", "data", "metric", "words"),
    [
        ("ring-published", "moons", "modes", "for data with known modes (ring, grid, gaussians)"),
        ("mlp-leaky", "strokes", "modes", "this run was trained on strokes"),
        ("ring-published", "ring", "parzen", "--metric parzen is for images: this G makes points"),
        ("ring-published", "ring", "agreement", "--metric agreement is for images"),
    ],
)
def test_a_metric_that_does_not_fit_is_one_line(make_run, capsys, preset, data, metric, words):
    run = make_run(preset, data)
    assert words in one_line(capsys, ["evaluate", str(run), "--metric", metric])
    assert not (run / "evaluation.json").exists()


def test_a_run_on_other_points_is_refused(make_run, capsys):
    run = make_run("ring-published", "ring")
    manifest = json.loads((run / "run.json").read_text())
    manifest["data"]["sha256"] = "0" * 64
    write_json(run / "run.json", manifest)
    assert "sha256" in one_line(capsys, ["evaluate", str(run), "--metric", "modes"])


# ---- the benchmark -----------------------------------------------------------------------------


@pytest.fixture
def ring_modes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("ring_modes")


def test_seeds_become_means_with_errors(make_run, tmp_path, ring_modes, capsys):
    for seed in (0, 1, 2):
        make_run("ring-published", "gaussians", f"runs/{seed}", seed=seed)
    make_run("ring-published", "ring", "runs/packed", seed=5, packing=2)
    out = tmp_path / "results" / "modes"
    ring_modes.main([str(tmp_path / "runs"), "--out", str(out)])
    record = json.loads(out.with_suffix(".json").read_text())
    by_name = {line["setting"]: line for line in record["settings"]}
    plain = by_name["ring-published, on gaussians"]
    rows = [row for row in record["runs"] if row["setting"] == plain["setting"]]
    assert plain["seeds"] == [0, 1, 2] == [row["seed"] for row in rows]
    shares = [row["quality"] for row in rows]
    assert plain["quality"] == pytest.approx([np.mean(shares), np.std(shares, ddof=1) / 3**0.5])
    assert plain["worst"] == min(shares)
    assert plain["minutes"] == pytest.approx([2.0, 1.0 / 3**0.5])
    assert plain["step"] == 7
    assert plain["published"] is None
    packed = by_name["ring-published, packing 2"]
    assert packed["published"] == [7.9, 0.956]
    assert packed["covered"][1] is None  # one seed has no error
    page = out.with_suffix(".md").read_text()
    assert "2.0 ± 0.6" in page
    assert "7.9 modes, 95.6 %" in page
    assert page in capsys.readouterr().out


def test_rows_measured_before_are_kept_on_request(make_run, tmp_path, ring_modes):
    first, second = (
        make_run("ring-published", "ring", f"runs/{seed}", seed=seed) for seed in (0, 1)
    )
    out = tmp_path / "modes"
    for runs, seeds in (([first], [0]), ([second, "--add"], [0, 1]), ([second], [1])):
        ring_modes.main([*map(str, runs), "--out", str(out)])
        record = json.loads(out.with_suffix(".json").read_text())
        assert record["settings"][0]["seeds"] == seeds


def test_refreshed_statistics_are_another_setting(make_run, tmp_path, ring_modes):
    run, out = make_run("ring-published", "ring"), tmp_path / "modes"
    ring_modes.main([str(run), "--out", str(out)])
    ring_modes.main([str(run), "--out", str(out), "--refresh", "3", "--add"])
    settings = json.loads(out.with_suffix(".json").read_text())["settings"]
    name = "ring-published"
    assert [s["setting"] for s in settings] == [name, f"{name}, statistics of 3 new minibatches"]
    assert settings[1]["published"] == [6.3, 0.982]


@pytest.mark.parametrize(
    ("step", "seconds"), [(0, 0.0), (10, 5.0), (20, 10.0), (25, 18.0), (30, 26.0)]
)
def test_an_earlier_checkpoint_took_its_share_of_the_session(ring_modes, step, seconds):
    sessions = [
        {"first_step": 1, "last_step": 20, "seconds": 10.0},
        {"first_step": 21, "last_step": 30, "seconds": 16.0},
    ]
    assert ring_modes.seconds_until(step, sessions) == pytest.approx(seconds)


def test_steps_made_again_count_once_and_untold_ones_as_the_others(ring_modes):
    first = {"first_step": 1, "last_step": 30, "seconds": 30.0}
    again = {"first_step": 21, "last_step": 40, "seconds": 10.0}
    assert ring_modes.seconds_until(40, [first, again]) == pytest.approx(30.0)
    assert ring_modes.seconds_until(20, [first, again]) == pytest.approx(20.0)
    assert ring_modes.seconds_until(40, [again]) == pytest.approx(20.0)


@pytest.mark.parametrize("packings", [(1,), (1, 2)])
def test_the_curve_is_drawn_from_what_was_measured(make_run, tmp_path, ring_modes, packings):
    ring_curve = importlib.import_module("ring_curve")
    for packing in packings:
        make_run("ring-published", "ring", f"runs/{packing}", packing=packing)
    measured, picture = tmp_path / "modes.json", tmp_path / "modes.png"
    ring_modes.main([str(tmp_path / "runs"), "--refresh", "50", "--out", str(measured)])
    ring_curve.main(["--measured", str(measured), "--out", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_run_is_one_line(tmp_path, ring_modes):
    with pytest.raises(OptionError, match="no run folder among these"):
        ring_modes.main([str(tmp_path), "--out", str(tmp_path / "modes")])
