"""Objective, penalty and the rest on the command line: what they resolve to, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygan.gan.objectives import OBJECTIVES, make_objective
from tinygan.presets import PAIRS, PRESETS
from tinygan.run import parse_options
from tinygan.run.options import Options


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(words: str) -> Options:
    return parse_options(words.split(), "", PRESETS)


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        options(words)
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    return errors


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_play_for_every_objective(preset: str, objective: str) -> None:
    recipe = options(f"--preset {preset} --objective {objective}").preset
    make_objective(
        recipe.objective,
        recipe.loss,
        recipe.halved,
        real_target=recipe.real_target,
        flipped=recipe.flipped,
        label_noise=recipe.label_noise,
    )
    assert recipe.objective == objective


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_pair_is_its_parts(preset: str, name: str) -> None:
    recipe = options(f"--preset {preset} --objective {name}").preset
    for field, value in PAIRS[name].items():
        assert getattr(recipe, field) == value
    assert recipe.k == 1 or recipe.order != "simultaneous"


def test_a_pair_and_its_parts_spelt_out_are_the_same() -> None:
    pair = options("--preset mlp-leaky --objective wgan-gp").preset
    words = "--objective wgan --penalty gp --penalty-weight 10 --k 5"
    assert pair == options(f"--preset mlp-leaky {words}").preset
    assert (pair.order, pair.loss) == ("paper", "logits")  # the preset has neither


def test_a_part_given_beside_a_pair_is_taken() -> None:
    recipe = options("--preset mlp-leaky --objective wgan-gp --penalty-weight 1 --k 2").preset
    assert (recipe.penalty, recipe.penalty_weight, recipe.k) == ("gp", 1.0, 2)
    assert options("--preset mlp-leaky --objective wgan-gp --penalty none").preset.penalty is None


def test_a_packed_minibatch_has_as_many_answers() -> None:
    packed = options("--preset ring-published --packing 2")
    assert (packed.preset.batch_size, packed.preset.samples_per_batch) == (100, 200)
    assert packed.steps_per_epoch(100_000) == 500


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mlp-leaky --k 5 --order simultaneous", "add --order paper"),
        ("mlp-leaky --penalty r3", "invalid choice: 'r3'"),
        ("mlp-leaky --penalty gp --penalty-weight -1", "expected a number above 0"),
        ("mlp-leaky --real-target 1.5", "expected a number above 0, at most 1"),
        ("mlp-leaky --real-target 0", "expected a number above 0, at most 1"),
        ("mlp-leaky --penalty-weight 3", "give --penalty, too"),
        ("mlp-leaky --objective wgan-gp --penalty none --penalty-weight 3", "give --penalty, too"),
        ("mlp-leaky --instance-noise -1", "expected a number that is not negative"),
        ("mlp-leaky --clip 0", "expected a number above 0"),
        ("mlp-leaky --packing 0", "expected a whole number at least 1"),
        ("mlp-leaky --data moon", "known: mnist, strokes, auto"),
        ("ring-published --data rings", "did you mean 'ring'?"),
        ("ring-published --conditional", "points have no labels"),
        ("sine-curve --conditional", "curves have no labels"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    words: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(f"--preset {words}", capsys)


def test_the_kind_of_a_preset_says_which_data_it_takes(tmp_path: Path) -> None:
    assert options("--preset mlp-leaky").data == "mnist"
    assert options("--preset ring-published").data == "ring"
    assert options("--preset sine-family").data == "sine-family"
    mine = options("--preset ring-published --data mine.npy").data
    assert mine == str(tmp_path / "mine.npy")
