"""Labels on the command line, and the classifier that says whether G heeds them."""

from __future__ import annotations

import gzip
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygan.__main__ import main
from tinygan.backend import get_backend
from tinygan.data import load_mnist, strokes
from tinygan.gradcheck import check_gradient, check_parameters
from tinygan.metrics import classifier
from tinygan.metrics.classifier import (
    Recipe,
    agreement,
    make_classifier,
    predict,
    softmax_cross_entropy,
    train_classifier,
)
from tinygan.nn import Cache, Condition, Dense, Network, Reshape, Sequential, Tanh
from tinygan.noise import Noise
from tinygan.presets import PRESETS
from tinygan.run.atomic import write_json
from tinygan.run.checkpoint import save_checkpoint
from tinygan.run.folder import FORMAT
from tinygan.run.manifest import describe_data
from tinygan.run.rebuild import load_generator

QUICK = Recipe(widths=(8, 16, 32), epochs=4, batch=30, keep=0.8, shift=1)
TRAIN, TEST = strokes(3000), strokes(500, split="test")
rng = np.random.default_rng(0)


# ---- softmax and its cross-entropy ---------------------------------------------------------------


def test_softmax_cross_entropy_and_its_gradient(backend64):
    logits, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    on_backend, cache = backend64.from_host(labels), Cache(backend64)

    def loss(x):
        value, _ = softmax_cross_entropy(backend64.from_host(x), on_backend, cache)
        return float(value)

    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss(logits), -np.log(p[np.arange(6), labels]).mean(), rtol=1e-12)
    _, d = softmax_cross_entropy(backend64.from_host(logits), on_backend, cache)
    check_gradient(loss, logits, backend64.to_host(d))


def test_softmax_cross_entropy_is_stable(backend):
    logits = backend.from_host(np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 3e4]], np.float32))
    loss, d = softmax_cross_entropy(logits, backend.from_host(np.array([0, 2])), Cache(backend))
    assert float(loss) == 0.0
    assert not backend.to_host(d).any()
    loss, d = softmax_cross_entropy(logits, backend.from_host(np.array([1, 2])), Cache(backend))
    assert float(loss) == 1e4  # half of 2e4
    assert backend.to_host(d).tolist() == [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]


def test_softmax_cross_entropy_equals_pytorchs():
    torch = pytest.importorskip("torch")
    backend = get_backend("numpy", "float64")
    logits, labels = 5.0 * rng.standard_normal((9, 7)), rng.integers(0, 7, 9)
    loss, d = softmax_cross_entropy(logits, labels, Cache(backend))
    x = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(x, torch.tensor(labels))
    theirs.backward()
    np.testing.assert_allclose(float(loss), theirs.item(), rtol=1e-13)
    np.testing.assert_allclose(d, x.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_the_whole_classifiers_gradient(backend64):
    recipe = Recipe(widths=(2, 3, 4))
    net = make_classifier((6, 5, 1), 3, backend64, recipe)
    noise = Noise(1, backend64)
    net.parameters += noise.normal("off", net.parameters.shape, 0.3)
    x, labels = noise.normal("x", (4, 6, 5, 1)), noise.integers("labels", 4, 3)
    site, losses = net.cache("train", noise=noise), net.cache("loss")

    def loss():
        return float(softmax_cross_entropy(net.forward(x, site), labels, losses)[0])

    _, d = softmax_cross_entropy(net.forward(x, site), labels, losses)
    net.gradients.fill(0)
    net.backward(d, site, input_grad=False)
    check_parameters(loss, net, entries=40)


# ---- the classifier ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge():
    net = make_classifier(TRAIN.image_shape, 10, get_backend("numpy"), QUICK)
    losses = []
    train_classifier(net, TRAIN.images, TRAIN.labels, QUICK, lambda _, loss: losses.append(loss))
    assert len(losses) == QUICK.epochs
    assert losses[-1] < losses[0] / 2
    return net


def test_it_learns_digits_and_sees_permuted_labels(judge):
    """The negative control of the measure: real digits, asked for in another order."""
    seen = predict(judge, TEST.images)
    share, each = agreement(seen, TEST.labels, 10)
    assert share > 0.93
    assert min(each) > 0.7
    permuted, _ = agreement(seen, rng.permutation(TEST.labels), 10)
    assert 0.04 < permuted < 0.17
    shifted, _ = agreement(seen, (TEST.labels + 1) % 10, 10)
    assert shifted < 0.05


def test_floats_and_bytes_are_the_same_images(judge):
    some = TEST.images[:50]
    np.testing.assert_array_equal(predict(judge, some), predict(judge, some / 255.0, batch=7))


def test_training_is_repeatable():
    recipe = replace(QUICK, epochs=1)
    ends = []
    for _ in range(2):
        net = make_classifier(TRAIN.image_shape, 10, get_backend("numpy"), recipe)
        train_classifier(net, TRAIN.images[:300], TRAIN.labels[:300], recipe)
        ends.append(net.parameters.copy())
    np.testing.assert_array_equal(*ends)


def test_training_images_are_moved_whole_pixels(backend):
    """Every shift of up to two pixels comes, and an image stays what it is."""
    noise, image = Noise(0, backend), np.zeros((1, 9, 7, 1), np.uint8)
    image[0, 4, 3] = 255
    padded = backend.from_host(np.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)]))
    site = Network(Dense(1, 1), (1,), backend).cache("train")
    index = backend.from_host(np.zeros(400, np.int64))
    x = backend.to_host(classifier._moved(padded, index, (9, 7, 1), 2, noise, site))
    assert x.shape == (400, 9, 7, 1)
    assert (x.reshape(400, -1).sum(axis=1) == 1.0).all()
    places = {tuple(place[1:3]) for place in np.argwhere(x)}
    assert places == {(i, j) for i in range(2, 7) for j in range(1, 6)}


def test_agreement_counts_each_label():
    share, each = agreement(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 4)
    assert share == 0.75
    assert each[:3] == [1.0, 1.0, 0.5]
    assert np.isnan(each[3])


@pytest.mark.skipif(not os.environ.get("TINYGAN_DATA"), reason="TINYGAN_DATA names no folder")
def test_on_real_digits_ignored_labels_are_seen():
    """A G that draws perfect digits and does not heed what was asked agrees by chance."""
    train, test = load_mnist("train"), load_mnist("test")
    net = make_classifier(train.image_shape, 10, get_backend("numpy"), QUICK)
    train_classifier(net, train.images[:3000], train.labels[:3000], QUICK)
    seen, asked = predict(net, test.images[:1000]), test.labels[:1000]
    assert agreement(seen, asked, 10)[0] > 0.9
    assert 0.05 < agreement(seen, rng.permutation(asked), 10)[0] < 0.15


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYGAN_DATA"), reason="TINYGAN_DATA names no folder")
def test_it_reads_mnist():
    train, test = load_mnist("train"), load_mnist("test")
    net = make_classifier(train.image_shape, 10, get_backend("numpy"))
    train_classifier(net, train.images, train.labels)
    assert agreement(predict(net, test.images), test.labels, 10)[0] >= 0.99


# ---- runs: one whose G heeds its labels, one whose G does not ------------------------------------

LATENT = 3


def draws_means(pixel_means, labels):
    """z and the label -> image: one dense layer, whose rows for labels can be whole digits."""
    return Sequential(
        *labels.layers(), Dense(LATENT + labels.width, 784), Tanh(), Reshape(28, 28, 1)
    )


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strokes-as-idx")
    for name, data in (("train", TRAIN), ("t10k", TEST)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(data.images[..., 0]))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(data.labels))
    return folder


@pytest.fixture
def make_run(tmp_path, digits, monkeypatch):
    """A function (name, heeds, conditional) -> run folder."""
    preset = replace(PRESETS["mlp-leaky"], generator=draws_means, latent=LATENT)
    monkeypatch.setitem(PRESETS, "mlp-leaky", preset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "RECIPE", QUICK)
    monkeypatch.setattr("tinygan.run.agreement.SAMPLES", 300)

    def make(name: str, heeds: bool = True, conditional: bool = True) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        options = {"preset": "mlp-leaky", "dtype": "float32", "data": "mnist"}
        options |= {"data_dir": str(digits)} | ({"conditional": "one-hot"} if conditional else {})
        data = describe_data(replace(TRAIN, name=digits.name))
        about = {"format": FORMAT, "preset": "mlp-leaky", "options": options, "data": data}
        write_json(folder / "run.json", about)
        layers = [Condition(10)] if conditional else []
        width = LATENT + 10 * conditional
        body = Sequential(*layers, Dense(width, 784), Tanh(), Reshape(28, 28, 1))
        backend = get_backend("numpy")
        G = Network(body, (LATENT,), backend, "G", Noise(0, backend))
        dense = body.layers[-3]
        dense.W *= 0.02
        dense.b.fill(-1.5)
        if conditional and heeds:
            ink = np.stack([TRAIN.images[TRAIN.labels == k][3] for k in range(10)])
            dense.W[LATENT:] = 4.0 * (ink.reshape(10, 784) / 255.0)
        save_checkpoint(folder / "checkpoints", 5, {"G": G}, {})
        return folder

    return make


def test_a_g_that_ignores_its_labels_is_detected(make_run, tmp_path, capsys):
    heeding, ignoring = make_run("heeds"), make_run("ignores", heeds=False)
    main(["evaluate", str(heeding), "--metric", "agreement"])
    first = capsys.readouterr()
    assert "training a classifier on 3,000 real images" in first.err
    assert "epoch 4 of 4" in first.err
    main(["evaluate", str(ignoring), "--metric", "agreement", "--seed", "1"])
    second = capsys.readouterr()
    assert "training a classifier" not in second.err  # it was kept
    (good,), (bad,) = (
        json.loads((folder / "evaluation.json").read_text()) for folder in (heeding, ignoring)
    )
    assert good["agreement"] > 0.9
    assert 0.05 < bad["agreement"] < 0.15
    assert good["classifier_accuracy"] == bad["classifier_accuracy"] > 0.93
    assert good["test_images"] == 500
    assert len(good["each_label"]) == 10
    assert f"{100 * good['agreement']:.2f} % of 300 samples (label by label: " in first.out
    accuracy = 100 * good["classifier_accuracy"]
    assert f"it is right in {accuracy:.2f} % of 500 real {good['data']} test images" in first.out
    main(["info", str(heeding)])
    told = capsys.readouterr().out
    assert "a classifier sees the label asked for" in told
    assert "one-hot" in told


def test_a_damaged_classifier_is_trained_anew(make_run, tmp_path, capsys, monkeypatch):
    run = make_run("run")
    monkeypatch.setattr(classifier, "RECIPE", replace(QUICK, epochs=1))
    main(["evaluate", str(run), "--metric", "agreement"])
    (kept,) = (tmp_path / "cache" / "tinygan" / "classifiers").glob("*/*.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"!")
    capsys.readouterr()
    main(["evaluate", str(run), "--metric", "agreement"])
    assert "is damaged (its sha256 differs from the recorded one): training it anew" in (
        capsys.readouterr().err
    )
    assert kept.read_bytes() == whole  # the same bits again
    one, two = json.loads((run / "evaluation.json").read_text())
    assert one["agreement"] == two["agreement"]


def test_a_classifier_that_cannot_be_kept_still_serves(make_run, tmp_path, capsys, monkeypatch):
    run = make_run("run")
    monkeypatch.setattr(classifier, "RECIPE", replace(QUICK, epochs=1))
    (tmp_path / "cache").write_text("no folder")
    main(["evaluate", str(run), "--metric", "agreement"])
    assert "cannot be kept for the next time" in capsys.readouterr().err


# ---- sample --labels ---------------------------------------------------------------------------


def drawn(run: Path, *words: str) -> dict[str, np.ndarray]:
    out = run / "out.npz"
    main(["sample", str(run), "--out", str(out), *words])
    with np.load(out) as file:
        return dict(file)


def test_samples_come_with_their_labels(make_run, capsys):
    run = make_run("run")
    file = drawn(run, "--n", "12", "--labels", "balanced")
    assert file["labels"].tolist() == [*range(10), 0, 1]
    assert file["labels"].dtype == np.int64
    assert file["samples"].shape == (12, 28, 28, 1)
    assert "labels 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in capsys.readouterr().out
    by_default = drawn(run, "--n", "12")
    for name, array in file.items():
        np.testing.assert_array_equal(by_default[name], array)
    some = drawn(run, "--n", "5", "--labels", "7,2")
    assert some["labels"].tolist() == [7, 2, 7, 2, 7]
    assert "labels 2, 7" in capsys.readouterr().out
    # z is that of before; the images are not
    assert np.abs(some["samples"][0] - file["samples"][0]).max() > 0.5
    np.testing.assert_array_equal(drawn(run, "--n", "3", "--labels", "0")["labels"], [0, 0, 0])


def test_a_grid_has_a_column_for_each_label(make_run, tmp_path):
    run = make_run("run")
    for words, (columns, rows) in [
        (["--n", "20"], (10, 2)),
        (["--n", "6", "--labels=1,2"], (2, 3)),
    ]:
        main(["sample", str(run), "--out", str(tmp_path / "a.png"), *words])
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.size == (29 * columns - 1, 29 * rows - 1)


def test_the_first_samples_of_every_label_are_the_same_for_every_n(make_run):
    generator = load_generator(make_run("run"))
    np.testing.assert_allclose(generator.samples(520)[:30], generator.samples(30), atol=1e-6)


def test_each_image_has_its_label_in_whichever_batch(make_run, monkeypatch):
    monkeypatch.setattr("tinygan.run.rebuild.BATCH", 4)
    generator = load_generator(make_run("run"))
    labels = generator.labels(11, [7, 2, 5])
    images = generator.samples(11, 0, labels).reshape(11, -1)
    templates = np.tanh(generator.network.body.layers[1].W[LATENT:] - 1.5)
    distance = ((images[:, None] - templates) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distance.argmin(axis=1), labels)


def test_an_unconditional_run_has_no_labels(make_run):
    file = drawn(make_run("run", conditional=False), "--n", "4")
    assert file.keys() == {"samples", "value_range"}


@pytest.mark.parametrize(
    ("conditional", "given", "words"),
    [
        (True, "sample {} --labels 0,10", "label 10 is not one of 0 ... 9"),
        (True, "sample {} --labels=-1", "label -1 is not one of 0 ... 9"),
        (True, "sample {} --labels one", "--labels: expected balanced, or labels such as 0,1,2"),
        (True, "sample {} --labels 1,", "given '1,'"),
        (True, "evaluate {} --metric agreement --split test", "--split goes with --metric parzen"),
        (False, "sample {} --labels balanced", "this run has no labels to ask for"),
        (False, "sample {} --labels 3", "this run has no labels to ask for"),
        (False, "evaluate {} --metric agreement", "is for runs with --conditional"),
    ],
)
def test_labels_that_make_no_sense_are_one_line(make_run, conditional, given, words, capsys):
    run = make_run("run", conditional=conditional)
    with pytest.raises(SystemExit) as stopped:
        main(given.format(run).split())
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert not (run / "generated.npz").exists()
    assert not (run / "evaluation.json").exists()
