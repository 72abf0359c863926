"""Pictures, curves and metrics on their own."""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygan import Network, Noise, get_backend
from tinygan.errors import ShapeError, TinyganError
from tinygan.gan import make_objective
from tinygan.gan.objectives import OBJECTIVES
from tinygan.nn import Dense, Sequential
from tinygan.run import losses, pictures
from tinygan.run.atomic import write_bytes, write_json
from tinygan.run.figures import new_figure
from tinygan.run.metrics_file import HEADER, METRICS, OLDER_HEADER, MetricsFile, read_metrics


def test_a_line_too_long_for_a_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + "\n" + 200_000 * "1" + "\n")
    with pytest.raises(TinyganError, match=r"cannot read .*metrics\.csv: field larger"):
        read_metrics(tmp_path / "metrics.csv")


def test_tiles_are_one_pixel_apart_and_nothing_is_around_them() -> None:
    images = np.full((6, 4, 3, 1), 255, np.uint8)
    picture = pictures.tile(images, (2, 3))
    assert picture.shape == (4 * 2 + 1, 3 * 3 + 2, 1)
    assert not picture[4].any()
    assert not picture[:, 3].any()
    assert not picture[:, 7].any()
    assert (picture == 0).sum() == 11 + 2 * 8


def test_values_are_mapped_from_their_range_and_clipped() -> None:
    values = np.array([-1.0, 0.0, 1.0, 1.5, -3.0]).reshape(1, 1, 5, 1)
    assert pictures.to_bytes(values, (-1, 1)).ravel().tolist() == [0, 128, 255, 255, 0]
    assert pictures.to_bytes(values, (0, 1)).ravel().tolist() == [0, 0, 255, 255, 0]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_grid_is_a_png_of_its_channels(tmp_path: Path, channels: int, mode: str) -> None:
    pictures.write_grid(tmp_path / "a.png", np.zeros((4, 8, 8, channels)), (2, 2), (-1, 1))
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (17, 17))


def test_two_channels_cannot_be_drawn() -> None:
    with pytest.raises(ShapeError, match=r"given \(4, 8, 8, 2\)"):
        pictures.tile(np.zeros((4, 8, 8, 2), np.uint8), (2, 2))


def test_a_long_animation_is_thinned_to_its_first_and_last(tmp_path: Path) -> None:
    for i in range(150):
        images = np.full((1, 6, 6, 1), i / 150)
        pictures.write_grid(tmp_path / f"step_{i:07d}.png", images, (1, 1), (0, 1))
    count = pictures.write_animation(tmp_path, tmp_path / "a.gif")
    assert count == pictures.MAX_FRAMES
    with Image.open(tmp_path / "a.gif") as animation:
        assert getattr(animation, "n_frames", 0) == count
        assert animation.info["loop"] == 0
        assert animation.size == (12, 12)


def test_a_damaged_grid_is_named(tmp_path: Path) -> None:
    (tmp_path / "step_0000001.png").write_bytes(b"no picture")
    with pytest.raises(TinyganError, match=r"step_0000001\.png"):
        pictures.write_animation(tmp_path, tmp_path / "a.gif")


def test_equilibrium_lines() -> None:
    summed = losses.loss_lines(halved=False, objective="non-saturating")
    assert [round(level, 4) for level, _ in summed] == [1.3863, 0.6931]
    assert [level for level, _ in losses.loss_lines(True, "non-saturating")] == [
        math.log(4),
        math.log(2),
    ]
    assert [level for level, _ in losses.loss_lines(False, "minimax")] == [
        math.log(4),
        -math.log(2),
    ]


def test_equilibrium_lines_of_scores() -> None:
    assert losses.loss_lines(True, "wgan")[0][0] == 0.0
    assert losses.loss_lines(True, "hinge")[0][0] == 2.0
    assert [level for level, _ in losses.loss_lines(False, "lsgan")] == [0.5, 0.25]
    assert [level for level, _ in losses.loss_lines(True, "lsgan")] == [0.25]
    assert losses.output_level("wgan") is None
    assert losses.output_level("lsgan") == (0.5, "½: D cannot tell")


@pytest.mark.parametrize("objective", ["minimax", "non-saturating", "lsgan"])
@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("real_target", [0.9, 0.7])
def test_equilibrium_lines_are_where_the_losses_are(
    objective: str, halved: bool, real_target: float
) -> None:
    """The objective itself, asked at the logit that the chapter gives."""
    p = 0.5 * real_target
    logit = p if objective == "lsgan" else math.log(p / (1.0 - p))
    wanted = make_objective(objective, halved=halved, real_target=real_target)
    backend = get_backend("numpy", "float64")
    D = Network(Sequential(Dense(1, 1)), (1,), backend, "D", Noise(0, backend))
    logits, cache = np.full((4, 1), logit), D.cache("losses")
    d_loss, d_real, d_fake = wanted.discriminator(logits, logits, cache)
    g_loss, _ = wanted.generator(logits, cache)
    levels = [level for level, _ in losses.loss_lines(halved, objective, real_target)]
    assert levels == pytest.approx([float(d_loss), float(g_loss)])
    assert np.allclose(d_real + d_fake, 0.0, atol=1e-12)  # D is at rest there
    level, _ = losses.output_level(objective, real_target) or (None, "")
    assert level == pytest.approx(p)


@pytest.mark.parametrize("real_target", [0.8, 0.9, 1.0])
@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("objective", ["minimax", "non-saturating", "lsgan"])
def test_words_at_close_levels_make_room_for_one_another(objective, halved, real_target):
    figure = new_figure(8.0, 3.0)
    axes, rows = figure.subplots(), [0.1, 1.5]
    metrics = {"step": [1.0, 2.0], "d_loss": rows, "g_loss": rows}
    losses._losses(axes, metrics, losses.loss_lines(halved, objective, real_target))
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 2 for below, above in pairwise(boxes))


def test_smoothing_keeps_lines_straight_and_lengths_equal() -> None:
    line = np.linspace(3, 7, 50)
    assert np.allclose(losses.smooth(line, 9)[4:-4], line[4:-4])
    assert np.allclose(losses.smooth(np.full(50, 7.0), 9), 7.0)
    assert np.allclose(losses.smooth(line, 0), line)
    noisy = np.random.default_rng(0).normal(size=1000)
    assert losses.smooth(noisy, 25)[50:-50].std() < 0.3 * noisy.std()


def columns_of(rows: int) -> dict[str, list[float]]:
    values = np.linspace(0.1, 0.9, rows).tolist()
    return {"step": list(range(rows)), "epoch": [1.0] * rows, **dict.fromkeys(METRICS, values)}


def height_of(path: Path, metrics: dict[str, list[float]], objective: str = "minimax") -> int:
    losses.write_curves(path, metrics, halved=False, objective=objective, title="t")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.height


@pytest.mark.parametrize("rows", [1, 2, 5000])
def test_curves_are_drawn_for_any_length(tmp_path: Path, rows: int) -> None:
    height_of(tmp_path / "losses.png", columns_of(rows))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_curves_are_drawn_for_every_objective(tmp_path: Path, objective: str) -> None:
    height_of(tmp_path / "losses.png", columns_of(40), objective)


def test_curves_of_odd_runs_are_drawn(tmp_path: Path) -> None:
    path, older = tmp_path / "losses.png", columns_of(40)
    older |= dict.fromkeys(METRICS[6:], [math.nan] * 40)
    assert height_of(path, older) < height_of(path, columns_of(40))  # panels left out
    mixed = columns_of(40)
    mixed |= dict.fromkeys(METRICS[6:], [math.nan] * 20 + [0.5] * 20)
    height_of(path, mixed)
    height_of(path, columns_of(40) | {"g_gradient": [0.0] * 40, "penalty": [0.0] * 40})
    height_of(path, columns_of(3) | {"d_loss": [2.0] * 3, "g_loss": [2.0] * 3}, "wgan")


def test_metrics_name_every_float32_exactly(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 0x7F000000, 900, dtype=np.uint32)
    values = bits.view(np.float32)
    file = MetricsFile(tmp_path / "metrics.csv")
    file.start()
    for i, row in enumerate(values.reshape(-1, len(METRICS))):
        file.append(i, 1, dict(zip(METRICS, map(float, row), strict=True)))
    file.close()
    columns = read_metrics(tmp_path / "metrics.csv")
    back = np.array([columns[name] for name in METRICS], np.float32).T.ravel()
    assert struct.pack("900f", *back) == struct.pack("900f", *values)


def older_file(path: Path) -> None:
    """As it was before there were penalties."""
    path.write_text(f"{OLDER_HEADER}\n1,1,1,2,3,4,5,6\n10,1,1,2,3,4,5,6\n15,2,1,2,3,4,5,6\n20,2,1")


def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    older_file(tmp_path / "metrics.csv")
    columns = read_metrics(tmp_path / "metrics.csv")
    assert columns["step"] == [1, 10, 15]
    assert columns["acc_fake"] == [6.0] * 3
    assert all(math.isnan(value) for name in METRICS[6:] for value in columns[name])


def test_a_file_of_an_older_version_goes_on_with_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    older_file(path)
    file = MetricsFile(path)
    file.rewind(15, lambda step: step == 1 or step % 10 == 0)
    file.append(20, 2, dict.fromkeys(METRICS, 0.5))
    file.close()
    assert path.read_text().splitlines() == [
        HEADER,
        "1,1,1,2,3,4,5,6,nan,nan,nan",
        "10,1,1,2,3,4,5,6,nan,nan,nan",
        "20,2,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5",
    ]
    file.rewind(20, lambda step: True)
    assert read_metrics(path)["step"] == [1, 10, 20]


@pytest.mark.parametrize("columns", ["step,epoch,d_loss", OLDER_HEADER + ",spread"])
def test_other_columns_are_no_older_version(tmp_path: Path, columns: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"{columns}\n" + ",".join("1" for _ in columns.split(",")) + "\n")
    with pytest.raises(TinyganError, match="cannot read"):
        read_metrics(path)


def test_rewinding_keeps_the_regular_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.start()
    for step in (1, 10, 15, 20):
        file.append(step, 1, dict.fromkeys(METRICS, 0.5))
    file.close()
    file.rewind(15, lambda step: step == 1 or step % 10 == 0)
    assert read_metrics(path)["step"] == [1, 10]
    path.write_text("other,columns\n")
    with pytest.raises(TinyganError, match="does not start with the columns"):
        file.rewind(15, lambda step: True)


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TinyganError, match=r"cannot write .*make it first") as refused:
        write_bytes(tmp_path / "nowhere" / "a.bin", b"")
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not list(tmp_path.iterdir())
