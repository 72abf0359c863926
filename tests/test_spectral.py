"""Convolution by transforms: the trilinear identity, im2col as its judge, planted mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conv_cases import (
    arrays,
    by_loops,
    channels,
    conv_options,
    derivatives,
    transposed_options,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import Plain

from tinygan import Network, get_backend
from tinygan.backend.convolution import DirectConvolution
from tinygan.backend.geometry import Geometry, conv_geometry, transposed_geometry
from tinygan.backend.lifted import MOST, Slot
from tinygan.backend.numpy_backend import NumpyBackend
from tinygan.backend.spectral import (
    Ring,
    SpectralConvolution,
    make_transform,
    points,
    ring,
    rings,
    spectral_is_faster,
)
from tinygan.gradcheck import check_layer
from tinygan.nn import Cache, Conv2D, ConvTranspose2D, Dense, Flatten, LeakyReLU, Sequential

geometries = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
few = settings(geometries, max_examples=20)
batches = st.sampled_from([1, 2, 5])
seeds = st.integers(0, 1000)

DCGAN = {  # the convolutions of dcgan-tf with many channels, and their R
    "7x7, stride 1": (Geometry((7, 7), (5, 5), (1, 1), (2, 2), (7, 7)), 121),
    "14x14, stride 2": (Geometry((14, 14), (5, 5), (2, 2), (1, 1), (7, 7)), 94),
}
ODD = {
    "stride beyond the kernel": conv_geometry((7, 8), (2, 1), (3, 3), "VALID"),
    "no remainder without taps": conv_geometry((5, 6), (3, 3), (3, 3), "SAME"),
    "one pixel": conv_geometry((1, 1), (5, 5), (2, 2), "SAME"),
    "pixels that nobody sees": conv_geometry((8, 9), (2, 2), (5, 4), "VALID"),
    "outputs that see padding only": Geometry((3, 3), (2, 2), (1, 1), (0, 0), (6, 5)),
    "nothing but padding": Geometry((2, 2), (2, 2), (1, 1), (5, 5), (2, 2)),
}


class Spectral(NumpyBackend):
    """NumPy with every convolution by transforms."""

    def _plan(self, geometry, c_in, c_out):
        return SpectralConvolution(self, geometry, c_in, c_out)


def difference(got, expected):
    """Largest difference, over the largest number expected."""
    assert np.isfinite(got).all()
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(got - expected).max(initial=0.0)) / scale


def defect(geometry, torus):
    """How far sum_r A[p, r] G[r, a] B[r, i] is from telling which pixel meets which tap."""
    A, B, phases = make_transform(geometry, torus)
    (H, W), kernel, _, _, outputs = geometry
    met = np.zeros((*outputs, *kernel, H, W))
    for (a, b), (ps, qs), (hs, ws) in geometry.taps():
        for p, h in zip(range(outputs[0])[ps], range(H)[hs], strict=True):
            for q, w in zip(range(outputs[1])[qs], range(W)[ws], strict=True):
                met[p, q, a, b, h, w] = 1.0
    worst = 0.0
    blocks = torus[0].blocks, torus[1].blocks
    for pixels, taps, G in phases:
        form = np.einsum("pr,ra,ri->pai", A, G, B)
        expected = met[(..., *taps, *pixels)]
        h, w = expected.shape[-2:]
        form = form.reshape(*expected.shape[:4], *blocks)[..., :h, :w]
        worst = max(worst, float(np.abs(form - expected).max(initial=0.0)))
        met[(..., *taps, *pixels)] = 0.0
    return max(worst, float(met.max(initial=0.0)))  # every meeting belongs to some phase


# ---- the matrices --------------------------------------------------------------------------------


@geometries
@given(conv_options())
def test_trilinear_identity(options):
    geometry = conv_geometry(*options)
    assert defect(geometry, rings(geometry)) < 1e-13


@pytest.mark.parametrize("geometry", ODD.values(), ids=ODD)
def test_trilinear_identity_at_the_edges(geometry):
    assert defect(geometry, rings(geometry)) < 1e-13


@pytest.mark.parametrize(("geometry", "R"), DCGAN.values(), ids=DCGAN)
def test_multiplications_of_the_dcgan(geometry, R):
    A, B, phases = make_transform(geometry, rings(geometry))
    assert A.shape == (49, R)
    assert B.shape == (R, 49)
    assert all(phase.G.shape[0] == R for phase in phases)
    assert sum(phase.G.shape[1] for phase in phases) == 25  # every tap belongs to one phase


@pytest.mark.parametrize("rows", range(1, 7))
@pytest.mark.parametrize("columns", range(1, 7))
def test_points_counts_the_rows_of_the_matrices(rows, columns):
    geometry = conv_geometry((rows, columns), (1, 1), (1, 1), "VALID")
    torus = rings(geometry)
    assert (torus[0].length, torus[1].length) == (rows, columns)
    assert len(make_transform(geometry, torus).B) == points(rows, columns)


def shorter(geometry, axis):
    """The defect on a torus that is one place too short along one axis."""
    torus = list(rings(geometry))
    torus[axis] = torus[axis]._replace(length=torus[axis].length - 1)
    return defect(geometry, tuple(torus))


@geometries
@given(conv_options().map(lambda options: (*options[:2], (1, 1), options[3])))
def test_a_ring_one_place_shorter_is_found(options):
    """The negative control: on it, some output meets a pixel that is not its own."""
    geometry = conv_geometry(*options)
    for axis in (0, 1):
        if rings(geometry)[axis].length > 1:
            assert shorter(geometry, axis) > 0.5


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("geometry", "R"), DCGAN.values(), ids=DCGAN)
def test_a_ring_one_place_shorter_is_found_in_the_dcgan(geometry, R, axis):
    assert shorter(geometry, axis) > 0.5


def test_a_longer_ring_serves_as_well():
    geometry, _ = DCGAN["7x7, stride 1"]
    longer = tuple(Ring(r.length + 3, r.blocks, r.used) for r in rings(geometry))
    assert defect(geometry, longer) < 1e-13


def test_rings_of_the_dcgan():
    assert ring(7, 5, 1, 2, 7).length == 9  # 7 outputs and a kernel that overhangs by 2
    assert ring(14, 5, 2, 1, 7).length == 8  # blocks of two pixels: at most 3 taps of a phase


# ---- the six verbs -------------------------------------------------------------------------------


def worst(dtype, geometry, n, c_in, c_out, seed):
    """Against im2col in float64, over the three derivatives."""
    x, w, y = arrays(geometry, n, c_in, c_out, seed)
    expected = derivatives(Plain("float64"), geometry, x, w, y)
    got = derivatives(Spectral(dtype), geometry, *(a.astype(dtype) for a in (x, w, y)))
    return max(difference(*pair) for pair in zip(got, expected, strict=True))


@geometries
@given(conv_options(), batches, channels, channels, seeds)
def test_equals_im2col_in_float64(options, n, c_in, c_out, seed):
    assert worst("float64", conv_geometry(*options), n, c_in, c_out, seed) < 1e-12


@geometries
@given(transposed_options(), batches, channels, channels, seeds)
def test_equals_im2col_in_float64_under_a_transposed_geometry(options, n, c_in, c_out, seed):
    assert worst("float64", transposed_geometry(*options), n, c_in, c_out, seed) < 1e-12


@geometries
@given(conv_options(), batches, channels, channels, seeds)
def test_equals_im2col_in_float32(options, n, c_in, c_out, seed):
    assert worst("float32", conv_geometry(*options), n, c_in, c_out, seed) < 1e-5


@pytest.mark.parametrize("geometry", ODD.values(), ids=ODD)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equals_im2col_at_the_edges(geometry, dtype):
    assert worst(dtype, geometry, 3, 2, 3, 0) < (1e-12 if dtype == "float64" else 1e-5)


@few
@given(conv_options(), batches, channels, channels, seeds)
def test_equals_seven_loops(options, n, c_in, c_out, seed):
    geometry = conv_geometry(*options)
    x, w, y = arrays(geometry, n, c_in, c_out, seed)
    for got, expected in zip(
        derivatives(Spectral("float64"), geometry, x, w, y),
        by_loops(geometry, x, w, y),
        strict=True,
    ):
        assert difference(got, expected) < 1e-12


@pytest.mark.parametrize(("geometry", "R"), DCGAN.values(), ids=DCGAN)
def test_float32_errs_as_a_float32_product_does(geometry, R):
    """At the sizes of a DCGAN: by no more than a few times what im2col errs by."""
    x, w, y = arrays(geometry, 8, 64, 128)
    exact = derivatives(Plain("float64"), geometry, x, w, y)
    x, w, y = (a.astype("float32") for a in (x, w, y))
    rounded = derivatives(Plain("float64"), geometry, *(a.astype("float64") for a in (x, w, y)))
    for truth, spectral, plain, drawn in zip(
        rounded,
        derivatives(Spectral("float32"), geometry, x, w, y),
        derivatives(Plain("float32"), geometry, x, w, y),
        exact,
        strict=True,
    ):
        scale = float(np.sqrt(np.mean(truth**2)))
        rms = float(np.sqrt(np.mean((spectral - truth) ** 2))) / scale
        plain_rms = float(np.sqrt(np.mean((plain - truth) ** 2))) / scale
        assert rms < 1e-6
        assert rms < 8 * plain_rms
        assert float(np.abs(spectral - truth).max()) / scale < 1e-5
        assert difference(truth, drawn) < 1e-6  # of the size of rounding the arguments


@few
@given(conv_options(), channels, seeds)
def test_takes_arrays_in_any_memory_order(options, c, seed):
    geometry = conv_geometry(*options)
    backend = Spectral("float64")
    x, w, y = arrays(geometry, 2, c, 2, seed)
    plan = backend.convolution(geometry, c, 2)
    results = []
    for order in ((0, 1, 2, 3), (1, 2, 0, 3), (3, 2, 1, 0)):
        back = np.argsort(order)
        lie = [np.ascontiguousarray(a.transpose(order)).transpose(back) for a in (x, w, y)]
        outs = [np.empty_like(a) for a in lie]
        outs[1][...] = 0.0
        cache = Cache(backend)
        X, Y = plan.lift_input(lie[0], cache, "X"), plan.lift_output(lie[2], cache, "Y")
        W = plan.lift_weight(lie[1], cache, "W")
        plan.output(X, W, outs[2])
        plan.input(Y, W, outs[0])
        plan.add_weight(X, Y, outs[1])
        results.append(outs)
    for outs in results[1:]:
        for got, expected in zip(outs, results[0], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_nothing_large_is_allocated_twice():
    """Of all verbs only the first call makes buffers."""
    geometry, _ = DCGAN["14x14, stride 2"]
    backend = Spectral("float32")
    plan, cache = backend.convolution(geometry, 4, 3), Cache(backend)
    x, w, y = (a.astype("float32") for a in arrays(geometry, 2, 4, 3))

    def addresses():
        X, Y = plan.lift_input(x, cache, "X"), plan.lift_output(y, cache, "Y")
        W = plan.lift_weight(w, cache, "W")
        plan.output(X, W, backend.empty_images(y.shape))
        plan.input(Y, W, backend.empty_images(x.shape))
        plan.add_weight(X, Y, w.copy())
        kept = [X, Y, W, *backend._workspaces.values()]
        return [a.ctypes.data for a in kept]

    assert addresses() == addresses()


# ---- layers on this backend ----------------------------------------------------------------------


@few
@given(conv_options(), batches, channels, channels)
def test_conv_passes_the_battery(options, n, c_in, c_out):
    size, kernel, stride, padding = options
    layer = Conv2D(c_in, c_out, kernel, stride, padding)
    check_layer(layer, (*size, c_in), batch=n, train=(True,), backend=Spectral)


@few
@given(transposed_options(), batches, channels, channels)
def test_transposed_conv_passes_the_battery(options, n, c_in, c_out):
    size, kernel, stride, padding, extra = options
    layer = ConvTranspose2D(c_in, c_out, kernel, stride, padding, extra)
    check_layer(layer, (*size, c_in), batch=n, train=(True,), entries=30, backend=Spectral)


def test_a_discriminator_passes_the_battery():
    D = Sequential(
        Conv2D(1, 3, 5, 2),
        LeakyReLU(0.3),
        Conv2D(3, 4, 5, 2),
        LeakyReLU(0.3),
        Flatten(),
        Dense(16, 1),
    )
    check_layer(D, (8, 8, 1), batch=2, backend=Spectral)


# ---- what stays lifted ---------------------------------------------------------------------------


class Counting(SpectralConvolution):
    """Counts how often an input is lifted, and the copies made of weights that are."""

    inputs = copies = 0

    def lift_input(self, x, memory, name):
        type(self).inputs += 1
        return super().lift_input(x, memory, name)


def counting(monkeypatch, dtype="float64"):
    backend = Spectral(dtype)
    backend._plan = lambda g, c_in, c_out: Counting(backend, g, c_in, c_out)
    monkeypatch.setattr(Counting, "inputs", 0)
    monkeypatch.setattr(Counting, "copies", 0)
    copy_of = Slot.copy_of

    def counted(slot, w, backend):
        Counting.copies += 1
        return copy_of(slot, w, backend)

    monkeypatch.setattr(Slot, "copy_of", counted)
    return backend


@pytest.mark.parametrize("train", [True, False])
def test_the_lifted_input_is_kept_in_training(monkeypatch, train):
    """Forward lifts it; in evaluation backward lifts it again. The gradients are the same."""
    backend, x = counting(monkeypatch), np.random.default_rng(0).standard_normal((2, 6, 5, 2))
    net = Network(Conv2D(2, 3, 3, 2), (6, 5, 2), backend)
    sites = [net.cache(name, train=train) for name in "ab"]
    y = [net.forward(x * (i + 1), site).copy() for i, site in enumerate(sites)]
    for site, dy in zip(sites, y, strict=True):  # a second site has not disturbed the first
        net.backward(dy, site)
    assert Counting.inputs == (2 if train else 4)
    plain = Network(Conv2D(2, 3, 3, 2), (6, 5, 2), NumpyBackend("float64"))
    plain.load(net.state())
    for i, dy in enumerate(y):
        site = plain.cache("plain")
        plain.forward(x * (i + 1), site)
        plain.backward(dy, site)
    np.testing.assert_allclose(net.gradients, plain.gradients, rtol=1e-11, atol=1e-12)


def test_the_weights_of_the_layers_used_last_stand_lifted(monkeypatch):
    """As many as MOST, also of one plan; changed numbers are lifted anew."""
    backend, geometry = counting(monkeypatch), DCGAN["14x14, stride 2"][0]
    plan = backend.convolution(geometry, 2, 3)
    drawn = np.random.default_rng(0).standard_normal((MOST + 1, 5, 5, 2, 3))

    def lifted(i):
        return plan.lift_weight(drawn[i], backend.shared, "W")

    def right(i, W):
        expected = SpectralConvolution(Spectral("float64"), geometry, 2, 3).lift_weight(
            drawn[i], Cache(backend), "W"
        )
        np.testing.assert_array_equal(W, expected)

    layers = range(MOST)
    first = [lifted(i) for i in layers]
    again = [lifted(i) for i in layers]
    assert Counting.copies == MOST
    assert all(a.ctypes.data == b.ctypes.data for a, b in zip(first, again, strict=True))
    drawn[1, -1, -1, -1, -1] += 1.0
    lifted(1)
    assert Counting.copies == MOST + 1
    Counting.copies = 0
    lifted(MOST)  # takes the place of layer 0, the longest unused
    assert [lifted(i) is not None and Counting.copies for i in (2, 1, 0)] == [1, 1, 2]
    monkeypatch.undo()
    for i in range(MOST + 1):
        right(i, lifted(i))


# ---- which plan ----------------------------------------------------------------------------------


def test_transforms_are_chosen_for_many_channels_and_small_images():
    backend = get_backend("numpy")
    for geometry, _ in DCGAN.values():
        assert isinstance(backend.convolution(geometry, 64, 128), SpectralConvolution)
        assert not spectral_is_faster(geometry, 1, 64)
    for size, kernel in ((28, 5), (32, 3), (64, 3)):
        large = conv_geometry((size, size), (kernel, kernel), (1, 1), "SAME")
        assert isinstance(backend.convolution(large, 64, 64), DirectConvolution)
    pointwise = conv_geometry((7, 7), (1, 1), (1, 1), "VALID")
    assert isinstance(backend.convolution(pointwise, 256, 256), DirectConvolution)


# ---- planted mistakes ----------------------------------------------------------------------------


class FlippedKernel(SpectralConvolution):
    def lift_weight(self, w, cache, name):
        return super().lift_weight(w[::-1, ::-1], cache, name)


class ForgetsAPhase(SpectralConvolution):
    def lift_input(self, x, cache, name):
        X = super().lift_input(x, cache, name)
        X[..., -self.c_in :] = 0.0
        return X


class StaleBlocks(SpectralConvolution):
    """The last block of an odd size keeps what an earlier use of the memory left there."""

    def _gather(self, x, pixels, blocks):
        blocks.fill(1.0)
        for f, phase in enumerate(pixels):
            part = x.transpose(1, 2, 0, 3)[phase]
            blocks[: part.shape[0], : part.shape[1], :, f] = part


class OverwritesTheGradient(SpectralConvolution):
    def add_weight(self, X, Y, out):
        out.fill(0.0)
        return super().add_weight(X, Y, out)


class WrongSine(SpectralConvolution):
    def __init__(self, backend, geometry, c_in, c_out):
        super().__init__(backend, geometry, c_in, c_out)
        self.A[:, -1] *= -1.0


@pytest.mark.parametrize(
    "mistake", [FlippedKernel, ForgetsAPhase, StaleBlocks, OverwritesTheGradient, WrongSine]
)
def test_a_planted_mistake_is_found(mistake):
    geometry = conv_geometry((7, 5), (5, 4), (2, 3), "SAME")
    backend = Spectral("float64")
    backend._plan = lambda g, c_in, c_out: mistake(backend, g, c_in, c_out)
    x, w, y = arrays(geometry, 2, 3, 2)
    expected = by_loops(geometry, x, w, y)
    got = derivatives(backend, geometry, x, w, y)
    assert max(difference(*pair) for pair in zip(got, expected, strict=True)) > 1e-3
    honest = derivatives(Spectral("float64"), geometry, x, w, y)
    assert max(difference(*pair) for pair in zip(honest, expected, strict=True)) < 1e-12


def test_the_lifts_are_linear_maps_with_the_adjoints_that_are_used():
    """<A z, y> = <z, Aᵀ y>, and so on: `input` and `add_weight` are adjoints of `output`."""
    geometry, _ = DCGAN["14x14, stride 2"]
    x, w, y = arrays(geometry, 2, 3, 4)
    of_y, of_x, of_w = derivatives(Spectral("float64"), geometry, x, w, y)
    form = [np.vdot(of_y, y), np.vdot(of_x, x), np.vdot(of_w, w)]
    assert max(form) - min(form) < 1e-12 * math.sqrt(x.size * w.size)


def test_a_network_computes_the_same_on_either_backend():
    def D():
        return Sequential(Conv2D(2, 3, 3, 2), LeakyReLU(), Conv2D(3, 2, 3), Flatten(), Dense(32, 1))

    backends = Spectral("float64"), NumpyBackend("float64")
    nets = [Network(D(), (8, 7, 2), backend) for backend in backends]
    x = np.random.default_rng(0).standard_normal((3, 8, 7, 2))
    for net in nets:
        site = net.cache("site")
        net.backward(net.forward(x, site), site)
    np.testing.assert_allclose(nets[0].gradients, nets[1].gradients, rtol=1e-11, atol=1e-12)
