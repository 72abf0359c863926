"""Pictures of curves, the sweep of z, the live window, and the example that shows them all."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tinygan import Network, Noise, get_backend
from tinygan.__main__ import main as command
from tinygan.data.curves import SINE, curves
from tinygan.errors import DataError
from tinygan.nn import Dense, Sequential
from tinygan.presets import SINES
from tinygan.run import live, sine_pictures, sine_sweep
from tinygan.run.metrics_file import METRICS, MetricsFile
from tinygan.run.sine_pictures import SinePicture, write_curve_picture
from tinygan.run.sine_sweep import sweep, write_sweep_picture

ROOT = Path(__file__).resolve().parent.parent
READING = dict.fromkeys(METRICS, 0.5) | {"d_loss": 1.7, "acc_real": 0.9, "acc_fake": 0.5}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the picture of step 40 goes, in the folder of a run with readings up to there."""
    (tmp_path / "samples").mkdir()
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.start()
    for step in range(0, 41, 10):
        metrics.append(step, 1, READING)
    metrics.close()
    return tmp_path / "samples" / "step_0000040.png"


def words_in(figure: Figure) -> str:
    """Everything that is written in it."""
    titles = [axes.get_title(place) for axes in figure.axes for place in ("left", "right")]
    return " | ".join(titles)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []

    def kept(figure: Figure, path: Path) -> np.ndarray:
        figures.append(figure)
        return save(figure, path)

    save = sine_pictures.save_figure
    monkeypatch.setattr(sine_pictures, "save_figure", kept)
    return figures


@pytest.mark.parametrize("name", SINES)
def test_a_picture_is_what_the_file_shows(name, place):
    data = curves(20, family=name == "sine-family")
    picture = SinePicture(data, SINES[name])(place, data.points[:8])
    assert (picture.shape, picture.dtype) == ((480, 960, 3), np.uint8)
    with Image.open(place) as file:
        np.testing.assert_array_equal(np.asarray(file.convert("RGB")), picture)
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    other = SinePicture(data, SINES[name])(place, data.points[8:16])
    assert not np.array_equal(other, picture)


def test_accuracy_and_score_stand_beside_their_equilibrium(place, drawn):
    SinePicture(curves(9), SINES["sine-curve"])(place, curves(8).points)
    words = words_in(drawn[0])
    assert "step 40" in words
    assert "D accuracy 0.700" in words  # the mean of its two halves
    assert "D score −1.200" in words
    assert "at equilibrium 0.5" in words
    assert "at equilibrium −log 4 = −1.386" in words


@pytest.mark.parametrize(
    ("changes", "score", "level"),
    [
        ({"halved": True}, "D score −2.400", True),  # V is the sum, not the mean of its halves
        ({"objective": "wgan"}, "− loss of D −1.200", False),
        ({"objective": "wgan", "halved": True}, "− loss of D −1.200", False),
        ({"real_target": 0.9}, "D score −1.200", False),
        ({"objective": "non-saturating"}, "D score −1.200", True),
    ],
)
def test_other_objectives_have_other_levels(changes, score, level, place, drawn):
    preset = dataclasses.replace(SINES["sine-curve"], **changes)
    SinePicture(curves(9), preset)(place, curves(8).points)
    words = words_in(drawn[0])
    assert score in words
    assert ("log 4" in words) == level


def test_before_the_first_reading_there_are_the_curves_alone(tmp_path, drawn):
    (tmp_path / "samples").mkdir()
    SinePicture(curves(9), SINES["sine-curve"])(
        tmp_path / "samples" / "step_0000000.png", curves(8).points
    )
    assert len(drawn[0].axes) == 1


def test_a_picture_of_curves_alone(tmp_path):
    y = curves(1000).points
    picture = write_curve_picture(tmp_path / "a.png", y, "sine-curve", "a title")
    assert picture.shape == (480, 640, 3)
    assert not np.array_equal(picture, write_curve_picture(tmp_path / "a.png", y))
    with pytest.raises(DataError, match="unknown curves"):
        write_curve_picture(tmp_path / "a.png", y, "ring")


# ---- the sweep -----------------------------------------------------------------------------------


def linear_G() -> Network:
    backend = get_backend("numpy", "float64")
    return Network(Sequential(Dense(5, 15)), (5,), backend, "G", Noise(0, backend))


def test_a_sweep_moves_one_number_and_holds_the_others():
    G, z = linear_G(), np.random.default_rng(0).normal(size=(3, 5))
    W = G.body.layers[0].W
    values = np.linspace(-2, 2, 17)
    curves_ = sweep(G, z, values)
    assert curves_.shape == (5, 3, 17, 15)
    for i in range(5):
        for b in range(3):
            held = z[b] @ W - z[b, i] * W[i]
            np.testing.assert_allclose(curves_[i, b], held + np.outer(values, W[i]), atol=1e-12)


def test_the_sweep_picture_shows_it(tmp_path):
    G = linear_G()
    picture = write_sweep_picture(tmp_path / "s.png", G, "sine-family", np.zeros((4, 5)))
    assert picture.shape == (875, 960, 3)
    G.body.layers[0].W = 0.0 * G.body.layers[0].W
    same = write_sweep_picture(tmp_path / "t.png", G, "sine-family", np.zeros((4, 5)))
    assert not np.array_equal(same, picture)


@pytest.mark.parametrize(("prior", "reach"), [("normal", 2.0), ("uniform", 3.0**0.5)])
def test_a_sweep_stays_where_the_prior_is(prior, reach, tmp_path, monkeypatch):
    seen, preset = [], replace(SINES["sine-curve"], prior=prior)
    monkeypatch.setattr(sine_sweep, "sweep", lambda G, z, values: seen.append(values) or y)
    y = np.zeros((5, 4, 17, 15))
    options = SimpleNamespace(preset=preset, seed=0, folder=tmp_path)
    sine_sweep.sweep_run(options, SimpleNamespace(name="sine-curve"), linear_G())
    assert (seen[0].min(), seen[0].max()) == (-reach, reach)


# ---- the window ----------------------------------------------------------------------------------


def test_without_a_screen_there_is_no_window(monkeypatch):
    assert live.open_window(3, 2) is None
    assert not plt.get_fignums()

    def no_screen(**_: object) -> None:
        raise ImportError("Cannot load backend 'TkAgg' which requires the 'tk' framework")

    monkeypatch.setattr(plt, "figure", no_screen)
    assert live.open_window(3, 2) is None


class Drawing(Figure):
    """A figure of a pyplot window: it has a number."""

    number = 1


class Screen:
    """Stands in for a toolkit: counts what is shown, and closes after some time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lasts: int) -> None:
        self.figure, self.left, self.shown = Drawing(figsize=(5, 3)), lasts, 0
        self.figure.canvas.start_event_loop = self.pass_time
        self.figure.canvas.draw_idle = self.draw
        monkeypatch.setattr(plt, "fignum_exists", lambda number: self.left > 0)

    def pass_time(self, seconds: float) -> None:
        self.left -= 1

    def draw(self) -> None:
        self.shown += 1


def test_the_window_shows_what_the_file_has_until_it_is_closed(monkeypatch, place):
    screen = Screen(monkeypatch, lasts=2)
    picture = SinePicture(curves(9), SINES["sine-curve"], live.Window(screen.figure))
    sizes = {picture(place, curves(8).points).shape for _ in range(4)}
    assert sizes == {(480, 960, 3)}  # whatever size the window is
    assert screen.shown == 2
    assert "D score" in words_in(screen.figure)
    picture.wait()  # it is closed: nothing to wait for


def test_waiting_ends_when_the_window_is_closed(monkeypatch):
    screen = Screen(monkeypatch, lasts=7)
    live.Window(screen.figure).wait()
    assert screen.left == 0


# ---- the example ---------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import train_sine_gan

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_sine_gan.py", *map(str, words)])
        train_sine_gan.main()

    return run


def test_the_example_from_start_to_samples(example, tmp_path, capsys):
    folder = tmp_path / "run"
    example("--steps", 100, "--out", folder, "--backend", "numpy", "--live")
    said = capsys.readouterr().err
    assert said.count("no screen here") == 1
    assert f"{folder}/samples.gif" in said
    assert json.loads((folder / "run.json").read_text())["preset"] == "sine-curve"
    pictures = sorted(path.name for path in (folder / "samples").iterdir())
    assert pictures == ["step_0000000.png", "step_0000050.png", "step_0000100.png"]
    assert (folder / "samples.gif").exists()
    assert (folder / "sweep.png").exists()
    command(["sample", str(folder), "--n", "30", "--out", str(tmp_path / "s.npz")])
    with np.load(tmp_path / "s.npz") as file:
        assert file["samples"].shape == (30, 15)
        assert file["samples"].dtype == np.float32
    command(["sample", str(folder), "--n", "30", "--out", str(tmp_path / "s.png")])
    assert "30 curves (15,)" in capsys.readouterr().out


def test_a_resumed_run_continues_bit_for_bit(example, tmp_path):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    new = ("--preset", "sine-family", "--backend", "numpy", "--sample-every", 40)
    example(*new, "--steps", 40, "--out", straight)
    example(*new, "--steps", 15, "--out", halves)
    example("--resume", halves, "--steps", 40)  # no preset is named: it is the recorded one
    for name in ("metrics.csv", "checkpoints/step_0000040.safetensors"):
        assert (straight / name).read_bytes() == (halves / name).read_bytes(), name
    for name in ("samples/step_0000040.png", "sweep.png"):  # with the whole history
        assert (straight / name).read_bytes() == (halves / name).read_bytes(), name


# ---- the benchmark -------------------------------------------------------------------------------


def test_the_benchmark_measures_and_tells(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sine_seeds

    runs = [sine_seeds.train(SINES["sine-family"], seed, 1000) for seed in (0, 1)]
    assert [point["step"] for point in runs[0]["points"]] == [500, 1000]
    assert runs[0]["averaged"]["distance"] == pytest.approx(runs[0]["points"][1]["distance"])
    real = sine_seeds.look_at(curves(100, family=True).points, "sine-family")
    words = sine_seeds.table("sine-family", runs, real)
    assert "| step 1,000 | " in words
    assert "-1.3863" in words
    record = {"real": {"sine-family": real}, "runs": runs}
    assert sine_seeds.draw(record).startswith(b"\x89PNG")


def test_a_discriminator_that_cannot_tell_is_at_the_equilibrium(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sine_seeds

    backend = get_backend("numpy", "float64")
    D = Network(Sequential(Dense(15, 1)), (15,), backend, "D", Noise(0, backend))
    real = np.tile(SINE, (10, 1))
    assert sine_seeds.judged(D, real, -real)["score"] != pytest.approx(-np.log(4.0))
    D.parameters[...] = 0.0
    assert sine_seeds.judged(D, real, -real) == {"accuracy": 0.5, "score": -2 * np.log(2.0)}
