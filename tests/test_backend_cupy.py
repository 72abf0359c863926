"""CupyBackend without a GPU: on the strict stand-in, with the kernels in NumPy and as compiled
source. Planted bugs show what each of these would catch. Nothing here needs a device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
import pytest
import standin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import FLAVOURS, OPERATIONS, TALL, Plain, compare, run
from small_games import IMAGES, SMALL_GAMES, SmallGame, largest_difference
from standin import compiled, kernels
from standin.module import RawModule, signatures

from tinygan import Adam, Network, Noise, Sequential, get_backend
from tinygan.backend import Backend, cupy_backend
from tinygan.backend.cupy_backend import BLOCK, CupyBackend, compiler_options, kernel_source
from tinygan.data.minibatches import Minibatches
from tinygan.errors import BackendError
from tinygan.gradcheck import PASSES, check_layer
from tinygan.nn import BatchNorm, Dense, Dropout, Layer, LeakyReLU, Maxout, Sigmoid, Tanh

relaxed = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
needs_compiler = pytest.mark.skipif(compiled.compiler() is None, reason="no C++ compiler on Linux")
needs_nvrtc = pytest.mark.skipif(
    nvrtc.load() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc-cu12 (or -cu13)"
)
Open = Callable[..., CupyBackend]


# ---- what is said where CuPy cannot run --------------------------------------------------------


def refusal(match: str) -> None:
    """get_backend("cupy") says it in one line, and "auto" takes NumPy and says why."""
    with pytest.raises(BackendError, match=match) as caught:
        get_backend("cupy")
    assert "\n" not in str(caught.value)
    backend = get_backend("auto")
    assert backend.name == "numpy"
    assert backend.reason.startswith("numpy, since cupy cannot run here")
    assert str(caught.value) in backend.reason


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    refusal(r"cupy is not installed: pip install \"cupy-cuda12x\[ctk\]\" \(or cupy-cuda13x")


def test_with_a_broken_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libcudart.so: cannot open\n\nmany\nmore lines")

    monkeypatch.setattr(cupy_backend, "import_module", broken)
    refusal(r"does not import \(libcudart.so: cannot open\): pip install")


@pytest.mark.parametrize(
    ("driver", "runtime", "words"),
    [
        (0, 12090, "there is no NVIDIA driver: install it, or take the numpy backend"),
        # CuPy 14 has no package for CUDA 11
        (11040, 12090, "CUDA 11.4 but this cupy is made for 12.9: update the driver, or take"),
        (12000, 12090, "no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES"),
        (12080, 13000, r"made for 13.0: update the driver, or .* and pip install \"cupy-cuda12x\["),
        (13000, 13010, "no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES"),
        (13000, 12090, "no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES"),
    ],
)
def test_without_a_device(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch, driver: int, runtime: int, words: str
) -> None:
    monkeypatch.setattr(standin.cuda, "available", False)
    monkeypatch.setattr(standin.cuda.runtime, "driver", driver)
    monkeypatch.setattr(standin.cuda.runtime, "runtime", runtime)
    refusal(words)


def test_when_cuda_does_not_answer(cupy_standin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("initialisation error\nwith more")

    monkeypatch.setattr(standin.cuda, "available", False)
    monkeypatch.setattr(standin.cuda.runtime, "driverGetVersion", broken)
    refusal("CUDA does not answer: initialisation error")


def test_when_kernels_do_not_compile(cupy_standin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: Any, name: str) -> Any:
        raise RuntimeError("failed to load libnvrtc.so.12\nand more")

    monkeypatch.setattr(RawModule, "get_function", broken)
    refusal(r"finds a GPU but cannot use it \(failed to load libnvrtc.so.12\)")


def test_the_installed_cupy_without_a_device() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    if cupy.cuda.is_available():
        pytest.skip("here is a device")
    refusal("cupy is installed but .*, or take the numpy backend")


def test_auto_takes_a_device_where_there_is_one(cupy_standin: Open) -> None:
    backend = get_backend("auto")
    assert backend.name == "cupy"
    assert "a GPU is here" in backend.reason
    assert backend.device == "Stand-in GPU, 8 GiB, CUDA 12.9, cupy 0 (stand-in)"
    assert get_backend("cupy").reason == "cupy, as asked"


def test_the_precision_is_as_asked(cupy_standin: Open) -> None:
    cupy_standin()
    for name in ("auto", "cupy"):
        for precision in ("float32", "tf32"):
            backend = get_backend(name, precision=precision)
            assert isinstance(backend, CupyBackend)
            assert backend.precision == precision


def test_the_stand_in_offers_nothing_that_cupy_lacks() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    own = {"counted", "events", "launched"}
    assert [name for name in {*standin.__all__} - own if not hasattr(cupy, name)] == []
    assert [name for name in standin.functions.FUNCTIONS if not hasattr(cupy, name)] == []
    inner = {"_host", "_memory", "_view", "_reshaped", "__module__"}
    public = [name for name in vars(standin.ndarray) if name not in inner]
    assert [name for name in public if not hasattr(cupy.ndarray, name)] == []


# ---- foreign arrays at the boundary ------------------------------------------------------------


class ForeignTensor:
    shape, dtype = (2, 3), np.dtype("float32")


ForeignTensor.__module__ = "torch"
HOST = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("foreign", [HOST, HOST.tolist(), ForeignTensor(), np.float32(1)])
def test_a_cupy_network_refuses_foreign_arrays(cupy_standin: Open, foreign: Any) -> None:
    net = Network(Dense(3, 2), (3,), cupy_standin(), "D")
    fix = r"the input of D must be a cupy.ndarray .*backend.from_host\(a\) for a numpy.ndarray"
    with pytest.raises(TypeError, match=fix):
        net.forward(foreign, net.cache("site"))
    net.forward(net.backend.from_host(HOST), net.cache("site"))


@pytest.mark.parametrize("kind", ["device", "list", "torch"])
def test_a_numpy_network_refuses_foreign_arrays(kind: str) -> None:
    foreign = {"device": standin.zeros((2, 3)), "list": HOST.tolist(), "torch": ForeignTensor()}
    net = Network(Dense(3, 2), (3,), get_backend("numpy"), "D")
    with pytest.raises(TypeError, match=r"the input of D must be a numpy.ndarray"):
        net.forward(foreign[kind], net.cache("site"))


def test_data_refuse_foreign_arrays(cupy_standin: Open) -> None:
    backend = cupy_standin()
    noise = Noise(0, backend)
    for foreign in (backend.from_host(IMAGES), IMAGES.tolist(), ForeignTensor()):
        with pytest.raises(TypeError, match=r"images must be a numpy.ndarray"):
            Minibatches(foreign, 4, noise, (0.0, 1.0))


def test_loading_refuses_foreign_arrays(cupy_standin: Open) -> None:
    backend = cupy_standin()
    net = Network(Dense(3, 2), (3,), backend, "D")
    before = net.state()
    for foreign in (net.named_parameters(), {n: ForeignTensor() for n in before}):
        for tensor in foreign.values():
            if isinstance(tensor, ForeignTensor):
                tensor.shape = before["W"].shape
        state = {**before, "W": foreign["W"]}
        with pytest.raises(TypeError, match=r"tensor W must be a numpy.ndarray"):
            net.load(state)
    for name, tensor in net.state().items():
        np.testing.assert_array_equal(tensor, before[name])


def test_copies_refuse_foreign_arrays(cupy_standin: Open) -> None:
    backend = cupy_standin()
    for foreign in (HOST.tolist(), ForeignTensor(), backend.zeros((2,))):
        with pytest.raises(TypeError, match=r"from_host takes a numpy.ndarray, got"):
            backend.from_host(foreign)
    with pytest.raises(TypeError, match=r"to_host must be a cupy.ndarray"):
        backend.to_host(HOST)


# ---- operations, on both ways to run a kernel --------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def compiled_engine(dtype: str, folder: Path, backwards: bool = False) -> Any:
    real = "float" if dtype == "float32" else "double"
    return compiled.engine(kernel_source(), real, BLOCK, folder, backwards)


@pytest.fixture(params=["emulated", pytest.param("compiled", marks=needs_compiler)])
def open_engine(
    request: pytest.FixtureRequest,
    cupy_standin: Open,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """A function dtype -> CupyBackend whose kernels run in NumPy, or as their own source."""

    def make(dtype: str = "float32") -> CupyBackend:
        engine = compiled_engine(dtype, folder) if request.param == "compiled" else None
        monkeypatch.setattr(RawModule, "engine", engine)
        return cupy_standin(dtype)

    return make


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
@relaxed
@given(
    seed=st.integers(0, 1 << 32),
    n=st.integers(1, 70),
    m=st.integers(1, 40),
    flavour=st.sampled_from(FLAVOURS),
)
def test_an_operation_equals_its_plain_form(
    open_engine: Open, name: str, dtype: str, **case: Any
) -> None:
    compare(name, open_engine(dtype), Plain(dtype), **case)


@pytest.mark.parametrize("name", TALL)
def test_many_rows_are_cut_into_tiles(open_engine: Open, name: str) -> None:
    """The last rows that take one launch, the first that take two, and a short lowest tile."""
    for dtype in ("float32", "float64"):
        for rows in (256, 257, 384, 1100):
            compare(name, open_engine(dtype), Plain(dtype), rows, rows, 33, "normal")


def test_words_are_those_of_numpy_philox(open_engine: Open) -> None:
    backend, reference, top = open_engine(), Plain("float32"), (1 << 64) - 1
    for counter in [(0, 0, 0, 0), (top, top, top, 0), (top - 1, top, 3, 4), (5, 6, top, top)]:
        for n in (0, 1, 7, 8, 9, 2049):
            words = backend.to_host(backend.philox((top, 7), counter, n))
            np.testing.assert_array_equal(words, reference.philox((top, 7), counter, n))


def test_strided_views_and_other_dtypes_go_the_plain_way(cupy_standin: Open) -> None:
    backend, reference = cupy_standin("float32"), Plain("float32")
    host = np.random.default_rng(0).standard_normal((6, 8))
    for x in (host.astype(np.float32), host):
        there = backend.from_host(x, dtype=x.dtype)
        for view, same in [(there[:, ::2], x[:, ::2]), (there.T, x.T), (there, x)]:
            given = backend.sigmoid(view, out=backend.empty(view.shape, view.dtype))
            expected = reference.sigmoid(same, out=np.empty(same.shape, same.dtype))
            np.testing.assert_allclose(backend.to_host(given), expected, rtol=1e-6)
            total = backend.column_sums(view, out=backend.empty(view.shape[1:], view.dtype))
            np.testing.assert_allclose(backend.to_host(total), same.sum(axis=0), rtol=1e-4)


def test_a_strided_array_comes_to_the_host(open_device: Open) -> None:
    """On a device CuPy's way there forgets a stream that is only in `use`."""
    backend = open_device()
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    there = backend.from_host(host)
    np.testing.assert_array_equal(backend.to_host(there.T), host.T)
    np.testing.assert_array_equal(backend.to_host(there[:, ::2]), host[:, ::2])
    assert backend.xp.cuda.get_current_stream() == backend.stream  # type: ignore[attr-defined]


def test_whole_numbers_are_a_range_of_pixels(cupy_standin: Open) -> None:
    """A kernel that is given a Python int takes its bits for a double's."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    drawn = [
        b.to_host(Minibatches(images, 2, Noise(0, b), (-1, 1))())
        for b in (cupy_standin(), get_backend("numpy"))
    ]
    np.testing.assert_array_equal(*drawn)


def test_an_empty_batch_launches_nothing(cupy_standin: Open) -> None:
    backend = cupy_standin()
    assert backend.sigmoid(backend.zeros((0, 3)), out=backend.empty((0, 3))).shape == (0, 3)


# ---- kernels -----------------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arch", ["compute_75", "compute_90"])
def test_kernels_compile_for_devices(dtype: str, arch: str) -> None:
    own = "-ftz=true", "--device-as-default-execution-space"  # what CuPy adds
    options = (*compiler_options(dtype), *own, f"--gpu-architecture={arch}")
    ptx = nvrtc.compile_to_ptx(kernel_source(), options)
    for name in signatures(kernel_source(), "float"):
        assert f".entry {name}(" in ptx
    assert "fma.rn.f32" not in ptx.split(".entry adam(")[1].split(".entry")[0]


@needs_nvrtc
def test_a_kernel_with_an_error_does_not_compile() -> None:
    source = kernel_source().replace("long long i = THREAD;", "long long i = THREADS;", 1)
    with pytest.raises(nvrtc.CompileError, match="THREADS"):
        nvrtc.compile_to_ptx(source, compiler_options("float32"))


def test_every_kernel_is_emulated_and_used() -> None:
    names = signatures(kernel_source(), "float").keys()
    assert names == kernels.EMULATIONS.keys()
    folder = Path(cupy_backend.__file__).parent
    used = "".join(path.read_text(encoding="utf-8") for path in folder.glob("cupy_*.py"))
    assert [name for name in names if f'"{name}"' not in used] == []
    assert "atomic" not in kernel_source().split("#define", 1)[1]


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_order_of_threads_does_not_matter(
    cupy_standin: Open, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Bitwise: a thread that read what another is about to write would show."""
    states = []
    for backwards in (False, True):
        monkeypatch.setattr(RawModule, "engine", compiled_engine(dtype, folder, backwards))
        small = SMALL_GAMES["mlp-batchnorm"](cupy_standin(dtype))
        small.play(1)
        states.append(small.state())
        for name in TALL:
            outputs, _ = run(name, small.game.G.backend, 0, 300, 40, "normal")
            states[-1] |= {f"{name} {i}": output for i, output in enumerate(outputs)}
    for name, tensor in states[0].items():
        np.testing.assert_array_equal(tensor, states[1][name], err_msg=name)


# ---- whole steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_GAMES)
def test_steps_agree_with_numpy(open_engine: Open, name: str) -> None:
    """Ten steps, past the end of an epoch; float64 to rounding, float32 nearly."""
    make = SMALL_GAMES[name]
    reference = get_backend("numpy", "float64")
    assert largest_difference(make(open_engine("float64")), make(reference), 10) < 1e-10
    assert largest_difference(make(open_engine("float32")), make(reference), 10) < 1e-3


@pytest.mark.parametrize("name", SMALL_GAMES)
def test_a_step_neither_waits_nor_copies(cupy_standin: Open, name: str) -> None:
    small = SMALL_GAMES[name](cupy_standin())
    with standin.counted() as events:
        for step in range(1, 15):  # over two epochs' ends
            small.play(step)
    assert events == []
    with standin.counted() as events:
        small.game.metrics()
    assert events == ["sync: get()"]


@pytest.mark.parametrize(
    ("layer", "shape", "passes"),
    [
        (Dense(3, 4), (3,), PASSES),
        (LeakyReLU(0.2), (5,), PASSES),
        (Tanh(), (5,), PASSES),
        (Sigmoid(), (5,), PASSES),
        (Maxout(3, units=2, pieces=3), (3,), PASSES),
        (Dropout(0.5), (6,), PASSES),
        (BatchNorm(4), (4,), ("backward", "jvp")),
    ],
    ids=str,
)
def test_layers_pass_the_battery(
    cupy_standin: Open, layer: Layer, shape: tuple[int, ...], passes: tuple[str, ...]
) -> None:
    check_layer(layer, input_shape=shape, passes=passes, backend=cupy_standin)


def test_a_state_moves_between_backends(cupy_standin: Open) -> None:
    small = SMALL_GAMES["mlp-batchnorm"](cupy_standin())
    small.play(1)
    host = small.game.G.copy(get_backend("numpy"))
    back = host.copy(small.game.G.backend)
    for name, tensor in small.game.G.state().items():
        np.testing.assert_array_equal(host.state()[name], tensor)
        np.testing.assert_array_equal(back.state()[name], tensor)
    optimiser = Adam(host, 1e-3, 0.5)
    optimiser.load(small.G_optimiser.state())
    assert optimiser.t == 1


# ---- negative controls: bugs that would only show on a device, planted -------------------------


def test_mixing_in_a_numpy_array_is_caught(cupy_standin: Open) -> None:
    x, host = cupy_standin().zeros((2, 3)), np.ones((2, 3), np.float32)
    for mix in (
        lambda: x + host,
        lambda: host + x,
        lambda: np.add(host, x),
        lambda: x.__iadd__(host),
        lambda: host.__iadd__(x),
        lambda: standin.multiply(x, host),
        lambda: standin.matmul(x, host.T),
        lambda: standin.exp(x, out=host),
        lambda: np.exp(x, out=host),
        lambda: x.sum(axis=0, out=host[0]),
        lambda: x.__setitem__(..., host),
        lambda: host.__setitem__(..., x),
        lambda: x[np.array([0, 1])],
        lambda: standin.where(host > 0, x, 0.0),
        lambda: np.asarray(x),
        lambda: np.array([1.0, 2.0, 3.0]) @ x.T,
    ):
        with pytest.raises(TypeError):
            mix()


def test_a_numpy_array_in_an_operation_is_caught(cupy_standin: Open) -> None:
    """Real kernels would take a NumPy array's bytes as they are."""
    backend = cupy_standin()
    x, host = backend.zeros((4, 1)), np.zeros((4, 1), np.float32)
    flat = np.zeros(4, np.float32)
    for call in (
        lambda: backend.sigmoid(host, out=x),
        lambda: backend.bce_logits(x, host, out=backend.empty((4, 1))),
        lambda: backend.column_sums(host, out=backend.empty((1,))),
        lambda: backend.adam(x[:, 0], flat, x[:, 0], x[:, 0], 0.5, 0.9, 1.0, 1e-8),
        lambda: backend.gather_images(
            IMAGES, backend.from_host(np.arange(2)), 1.0, 0.0, backend.empty((2, 6, 6, 1))
        ),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.fixture
def small(cupy_standin: Open) -> SmallGame:
    return SMALL_GAMES["mlp-batchnorm"](cupy_standin("float64"))


def test_a_hidden_wait_is_caught(small: SmallGame, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CupyBackend.adam

    def clips_by_value(self: Any, theta: Any, grad: Any, *rest: Any) -> None:
        if (grad * grad).sum() > 1e6:  # innocent in NumPy
            grad *= 0.5
        plain(self, theta, grad, *rest)

    monkeypatch.setattr(CupyBackend, "adam", clips_by_value)
    with standin.counted() as events:
        small.play(1)
    assert events == ["sync: bool()"] * 3  # D twice, G once


@pytest.mark.parametrize(
    "wait",
    [float, int, bool, str, repr, "{:.3f}".format, lambda x: x.item(), lambda x: x.get(),
     lambda x: x.tolist(), standin.asnumpy, lambda x: standin.zeros((2,))[x > 0]],
)  # fmt: skip
def test_every_way_to_wait_is_counted(wait: Callable[..., Any]) -> None:
    x = standin.zeros((), "float32")
    with standin.counted() as events:
        wait(x)
    assert len(events) == 1


def test_a_hidden_copy_is_caught(small: SmallGame, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = small.game.G.backend
    host = np.zeros((8, 5))
    monkeypatch.setattr(small.game, "draw_noise", lambda: backend.from_host(host))
    with standin.counted() as events:
        small.play(1)
    assert events == ["copy: array()"] * 3


def test_uninitialised_memory_is_caught(small: SmallGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """matmul_add without its first product: right in a test that finds zeros in fresh memory."""

    def adds_into_scratch(self: Any, a: Any, b: Any, out: Any) -> Any:
        scratch = self.empty(out.shape)
        scratch += self.xp.matmul(a, b)
        out += scratch
        return out

    monkeypatch.setattr(CupyBackend, "matmul_add", adds_into_scratch)
    reference = SMALL_GAMES["mlp-batchnorm"](get_backend("numpy", "float64"))
    assert np.isnan(largest_difference(small, reference, 1))


@pytest.mark.parametrize(
    "kernel",
    ["philox", "normals", "leaky", "leaky_backward", "column_sums", "batch_norm",
     "batch_norm_backward", "move_statistics", "adam", "bce_logits"],
)  # fmt: skip
def test_a_kernel_with_wrong_bits_is_caught(
    small: SmallGame, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    right = kernels.EMULATIONS[kernel]

    def wrong(grid: int, block: int, *args: Any) -> None:
        right(grid, block, *args)
        at = next(i for i, a in enumerate(args) if getattr(a, "flags", None) and a.flags.writeable)
        changed = args[at].view(np.uint8)  # one bit of the first output's first element
        changed[3 if kernel == "philox" else args[at].itemsize - 3] ^= 1

    monkeypatch.setitem(kernels.EMULATIONS, kernel, wrong)
    reference = SMALL_GAMES["mlp-batchnorm"](get_backend("numpy", "float64"))
    assert not largest_difference(small, reference, 2) < 1e-10
    backend = small.game.G.backend
    if kernel == "philox":
        assert backend.to_host(backend.philox((1, 2), (3, 4, 5, 6), 1)) != Plain("float32").philox(
            (1, 2), (3, 4, 5, 6), 1
        )
    else:
        with pytest.raises(AssertionError):
            compare(kernel, backend, Plain("float64"), 0, 9, 7, "normal")


class OneBlockShort(CupyBackend):
    def _launch(self, name: str, blocks: int, *args: Any) -> None:
        super()._launch(name, max(1, blocks - 1), *args)


def test_a_launch_that_is_too_small_is_caught(cupy_standin: Open) -> None:
    backend = OneBlockShort("float32")
    with pytest.raises(AssertionError):
        compare("sgd", backend, Plain("float32"), 0, 60, 30, "normal")


@pytest.fixture
def launch(cupy_standin: Open) -> Callable[..., None]:
    """Launches leaky(x, slope, out, n) with arguments of choice."""
    backend = cupy_standin()
    x = backend.from_host(np.ones(8, np.float32))
    right = {"x": x, "slope": 0.2, "out": backend.empty((8,)), "n": 8}
    kernel = standin.RawModule(
        code=kernel_source(), options=compiler_options("float32")
    ).get_function("leaky")
    return lambda **wrong: kernel((1,), (BLOCK,), tuple({**right, **wrong}.values()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 1},  # arrives as the bits of a long long
        {"slope": np.float32(0.2)},  # four bytes where eight are read
        {"n": 8.0},
        {"n": np.int32(8)},
        {"x": np.ones(8, np.float32)},
        {"x": standin.zeros((8,), "float64")},
        {"x": standin.zeros((8, 2), "float32")[:, 0]},
        {"more": 1},
    ],
)
def test_wrong_arguments_of_a_launch_are_caught(
    launch: Callable[..., None], wrong: dict[str, Any]
) -> None:
    launch()
    with pytest.raises(TypeError, match="leaky"):
        launch(**wrong)


def test_an_index_outside_the_data_is_caught(cupy_standin: Open) -> None:
    backend = cupy_standin()
    images, index = backend.from_host(IMAGES), backend.from_host(np.array([0, 50]))
    with pytest.raises(RuntimeError, match="outside the data"):
        backend.gather_images(images, index, 1.0, 0.0, backend.empty((2, 6, 6, 1)))


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if (c0 < before &&", "if (c0 > before &&"),
        ("0x9E3779B97F4A7C15ull", "0x9E3779B97F4A7C16ull"),
        ("8 * (i % 4)", "8 * (3 - i % 4)"),
        ("(REAL)scale * images", "(REAL)shift * images"),
        ("unit(words[i]) * (high - low) + low", "unit(words[i]) * high + low"),
        ("(word + 0.5)", "(word + 1.0)"),
        ("radius * sin(angle)", "radius * cos(angle)"),
        ("words[i] * high >> 32", "(int)words[i] * high >> 32"),
        ("copysign((REAL)1, x) < 0", "x < 0"),
        ("dy[i] * leaky_factor(x[i], slope)", "x[i] * leaky_factor(x[i], slope)"),
        ("value > best", "value < best"),
        ("free = free && !hit", "free = free && hit"),
        ("for (int g = 0;", "for (int g = 1;"),
        ("    __syncthreads();  // everybody", "    // everybody"),
        ("    __syncthreads();\n    double sum", "    double sum"),
        ("        __syncthreads();\n        if (thread <", "        if (thread <"),
        ("end < rows ? end : rows", "rows"),
        ("out[at] = add ? out[at] + sum : sum", "out[at] = sum"),
        ("part + 1 < t.parts ? t.height", "part < t.parts ? t.height"),
        ("= (REAL)squares;", "= (REAL)mean;"),
        ("= (REAL)products;", "= (REAL)sum;"),
        ("sum_of_squares += means[", "sum_of_squares = means["),
        ("+ rows_of(t, p) * distance * distance", "+ distance"),
        ("squares / rows", "squares / (rows - 1)"),
        ("sqrt(var + eps)", "sqrt(var)"),
        ("value * scale + shift", "some[k] * scale + shift"),
        ("(t.parts + p) * t.columns + t.column", "p * t.columns + t.column"),
        ("some_hat[k] * slope + level", "some_hat[k] * slope - level"),
        ("if (!add || t.part", "if (t.part"),
        ("d_beta[t.column] += (REAL)sum", "d_beta[t.column] = (REAL)sum"),
        ("fresh * stats[n + i]", "fresh * stats[i]"),
        ("(REAL)(share / n)", "(REAL)(1.0 / n)"),
        ("(REAL)share * p", "p"),
        ("v[i] * (REAL)beta2 + grad[i] * grad[i]", "v[i] * (REAL)beta2 + grad[i]"),
        ("- grad[i] * lr", "+ grad[i] * lr"),
        ("soft ? target[i]", "soft ? target[0]"),
    ],
)
def test_a_mistake_in_the_source_is_caught(
    cupy_standin: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    source = kernel_source()
    assert right in source
    engine = compiled.engine(source.replace(right, wrong), "float", BLOCK, tmp_path)

    def compare_all() -> None:
        monkeypatch.setattr(RawModule, "engine", engine)
        backend, reference = cupy_standin(), Plain("float32")
        words = backend.to_host(backend.philox((1, 2), ((1 << 64) - 2, 0, 0, 0), 40))
        expected = reference.philox((1, 2), ((1 << 64) - 2, 0, 0, 0), 40)
        np.testing.assert_array_equal(words, expected)
        for name in OPERATIONS:
            for flavour in ("normal", "ties"):
                compare(name, backend, reference, 0, 65, 33, flavour)
        for name in TALL:
            compare(name, backend, reference, 0, 1100, 33, "normal")

    with pytest.raises(AssertionError):
        compare_all()


def test_a_backend_is_a_backend(cupy_standin: Open) -> None:
    backend: Backend = cupy_standin()
    net = Network(Sequential(Dense(3, 2)), (3,), backend)
    assert net.first_nonfinite() is None
    assert backend.xp is standin
