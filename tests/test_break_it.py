"""Every case of the gallery is detected, every mend mends, and healthy presets stay unremarked."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tinygan.gan.monitor import SIGNS
from tinygan.presets import DCGANS, MLPS, PLANES, SINES

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = ("saturated", "collapsed", "exploding", "mixed-batch", "no-d", "strong-d")


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    return __import__(name)


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return example("break_it", monkeypatch)


def test_the_gallery_shows_every_sign(gallery: ModuleType) -> None:
    """But for the one that only has more patience: alike from the start."""
    assert tuple(gallery.CASES) == NAMES
    assert {sign.name for sign in SIGNS} == {*NAMES, "alike"}


def test_a_mend_changes_what_it_says_and_no_more(gallery: ModuleType) -> None:
    for case in gallery.CASES.values():
        broken, mended = dataclasses.asdict(case.broken), dataclasses.asdict(case.mended)
        changed = {name for name in broken if broken[name] != mended[name]}
        assert 1 <= len(changed) <= 2
        assert "steps" not in changed


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_detected_and_its_mend_is_not(gallery: ModuleType, name: str) -> None:
    case = gallery.CASES[name]
    for story in gallery.play(case.broken):
        if name in story.said:
            break
    assert set(story.said) == {name}  # and nothing else was said before
    as_long = dataclasses.replace(case.mended, steps=story.said[name])
    *_, mended = gallery.play(as_long)
    assert mended.warnings == []


# Of mixed-batch two more: there D rejects the fakes in its own turn, and is not always right on x.
SEEDS = [(name, seed) for name in NAMES for seed in (0, 1, 2)]
SEEDS += [("mixed-batch", 4), ("mixed-batch", 10)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_it_does_not_hang_on_the_seed(gallery: ModuleType, name: str, seed: int) -> None:
    case = gallery.CASES[name]
    *_, broken = gallery.play(case.broken, seed)
    assert next(iter(sorted(broken.said, key=broken.said.__getitem__))) == name
    *_, mended = gallery.play(case.mended, seed)
    assert mended.warnings == []


def test_without_a_name_all_are_listed(
    gallery: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)


@pytest.mark.parametrize("name", ["no-d", "saturated"])  # points and curves
def test_one_leaves_a_picture_and_says_what_it_did(
    gallery: ModuleType,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = gallery.CASES[name]
    quick = dataclasses.replace(
        case,
        broken=dataclasses.replace(case.broken, steps=520),
        mended=dataclasses.replace(case.mended, steps=20),
    )
    monkeypatch.setitem(gallery.CASES, name, quick)
    gallery.main([name, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "the monitor says: " in out
    assert "mended, step 20, the monitor says: nothing." in out
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.size == (840, 560)


# ---- ordinary runs -----------------------------------------------------------------------------


def warnings_of(example_name: str, words: str, folder: Path, patch: pytest.MonkeyPatch) -> object:
    out = folder / "run"
    example(example_name, patch).main([*words.split(), "--out", str(out)])
    return json.loads((out / "run.json").read_text()).get("warnings", [])


def test_the_first_steps_of_a_preset_raise_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "--preset mlp-leaky --data strokes --batch-size 16 --steps 400"
    assert warnings_of("train_mlp_gan", words, tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", MLPS)
def test_mlps_raise_nothing(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"--preset {preset} --data strokes --steps 2000"
    assert warnings_of("train_mlp_gan", words, tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", DCGANS)
def test_dcgans_raise_nothing(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"--preset {preset} --data strokes --steps 1200 --batch-size 32"
    assert warnings_of("train_dcgan", words, tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", PLANES)
def test_planes_raise_nothing(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"--preset {preset} --steps 2000 --log-every 10"
    assert warnings_of("train_2d", words, tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", SINES)
def test_sines_raise_nothing(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"--preset {preset} --steps 5000"
    assert warnings_of("train_sine_gan", words, tmp_path, monkeypatch) == []
