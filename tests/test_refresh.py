"""--refresh: BatchNorm's running statistics see minibatches of a G that holds still: [bn.9]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fresh_run import fresh_run
from safetensors.numpy import load_file

from tinygan.__main__ import main
from tinygan.nn import Network
from tinygan.noise import Noise
from tinygan.run.rebuild import load_generator

MOMENTUM = 0.95  # of ring-published


@pytest.fixture
def make_run(tmp_path: Path):
    """A function that makes the folder of a run with one checkpoint of a fresh G."""

    def make(preset: str = "ring-published", data: str = "ring", **options) -> Path:
        return fresh_run(tmp_path / "run", preset, data, **options)

    return make


def first_layer(G: Network) -> tuple[np.ndarray, np.ndarray]:
    """(running variance, true variance) of the features z W, z ~ N(0, I)."""
    dense, norm, *_ = G.body.layers
    return norm.running_var, (dense.W**2).sum(axis=0)


def test_what_is_left_of_the_past_falls_with_every_minibatch(make_run):
    run = make_run()
    for n in (1, 10, 50):
        running, true = first_layer(load_generator(run, backend="numpy", refresh=n).network)
        past = MOMENTUM**n  # the variance of a checkpoint that has seen nothing is 1
        expected = past + (1.0 - past) * true
        np.testing.assert_allclose(running, expected, atol=0.5 * true.max())


def test_after_many_minibatches_the_statistics_are_those_of_this_G(make_run):
    run = make_run()
    G = load_generator(run, backend="numpy", refresh=400).network
    running, true = first_layer(G)
    # The noise of one minibatch of 100 is sqrt(2/100), that of 39 of them 2.3 %.
    np.testing.assert_allclose(running, true, rtol=6 * 0.023)
    stale, true = first_layer(load_generator(run, backend="numpy").network)
    assert (stale > 100 * true).all()  # and without it they are not


def test_nothing_but_the_statistics_changes_and_each_time_alike(make_run):
    run = make_run()
    stale, once, again = (load_generator(run, backend="numpy", refresh=n) for n in (0, 3, 3))
    np.testing.assert_array_equal(stale.network.parameters, once.network.parameters)
    np.testing.assert_array_equal(once.network.statistics, again.network.statistics)
    assert np.abs(stale.network.statistics - once.network.statistics).max() > 0.1
    np.testing.assert_array_equal(once.samples(5), again.samples(5))


def test_a_minibatch_is_what_the_run_calls_one(make_run):
    """`batch_size` counts D's answers; packs of two take twice as many samples."""
    generator = load_generator(make_run(batch_size=4, packing=2), backend="numpy", refresh=2)
    running, true = first_layer(generator.network)
    noise, expected = Noise(0, generator.network.backend), np.ones_like(true)
    for step in (1, 2):
        z = generator.preset.draw_latent(noise.at(step), "refresh", 8)
        seen = (z @ generator.network.body.layers[0].W).var(axis=0)
        expected = MOMENTUM * expected + (1.0 - MOMENTUM) * seen
    np.testing.assert_allclose(running, expected, rtol=1e-5)


def test_a_conditional_G_is_asked_for_every_label(make_run):
    run = make_run("mlp-leaky-bn", "strokes", conditional="one-hot")
    G = load_generator(run, backend="numpy", refresh=200).network
    dense, _, following, norm = G.body.layers[1:5]
    labels = np.arange(2000) % 10
    z = load_generator(run).preset.draw_latent(Noise(5, G.backend), "z", 2000)
    x = z @ dense.W[:-10] + dense.W[-10:][labels] + dense.b
    y = np.where(x > 0, x, 0.2 * x) @ following.W + following.b
    noise = y.std(axis=0) / np.sqrt(39 * 64)
    assert (np.abs(norm.running_mean - y.mean(axis=0)) < 6 * noise).mean() > 0.99
    of_one_label = y[labels == 3].mean(axis=0)
    assert (np.abs(norm.running_mean - of_one_label) < 6 * noise).mean() < 0.9


def test_the_commands_say_so(make_run, capsys):
    run = make_run()
    asked = [str(run), "--backend", "numpy", "--refresh", "2"]
    main(["sample", *asked, "--n", "3", "--out", str(run / "a.npz")])
    assert "checkpoint 7, statistics of 2 new minibatches, seed 0" in capsys.readouterr().out
    main(["evaluate", *asked, "--metric", "modes"])
    assert "checkpoint 7, statistics of 2 new minibatches)" in capsys.readouterr().out
    (result,) = json.loads((run / "evaluation.json").read_text())
    assert result["weights"] == "checkpoint 7, statistics of 2 new minibatches"
    with np.load(run / "a.npz") as file:
        samples = load_generator(run, backend="numpy", refresh=2).samples(3)
        np.testing.assert_array_equal(file["samples"], samples)


def test_an_exported_G_has_them_too(make_run, capsys):
    run = make_run()
    asked = [str(run), "--backend", "numpy", "--refresh", "2", "--to", str(run / "g.safetensors")]
    main(["export", *asked])
    assert "checkpoint 7, statistics of 2 new minibatches" in capsys.readouterr().out
    tensors = load_file(run / "g.safetensors")
    running, _ = first_layer(load_generator(run, backend="numpy", refresh=2).network)
    np.testing.assert_array_equal(tensors["1.running_var"], running)
    with pytest.raises(SystemExit):
        main(["export", *asked, "--player", "D"])
    assert "error: --refresh is for G" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--refresh", "3"], ["--refresh", "0"], ["--refresh", "many"]])
def test_nothing_to_refresh_is_one_line(make_run, capsys, words):
    run = make_run("ring-best")
    with pytest.raises(SystemExit) as exit_:
        main(["sample", str(run), *words])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "refresh" in error
    assert not (run / "generated.npz").exists()
