"""The benchmarks of a GPU, as far as they go without one: PyTorch's side on the CPU, the reports on
made-up figures, the programs from end to end on NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinygan.errors import BackendError

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PROGRAMS = {"gpu_step": "this benchmark", "gpu_timeline": "a timeline"}


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def without_device(name="cuda"):
    raise BackendError("the package cupy is not installed: do this")


# ---- gpu_step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_device_it_says_so_in_one_line(program, monkeypatch, capsys, tmp_path):
    pytest.importorskip("torch")
    module = __import__(program)
    monkeypatch.setattr(module, "find_device", without_device)
    assert module.main(["--out", str(tmp_path / "no")]) == 2
    said = f"error: {PROGRAMS[program]} needs an NVIDIA GPU: the package cupy is not installed: do"
    assert capsys.readouterr().err == said + " this\n"
    assert list(tmp_path.iterdir()) == []


def test_without_torch_it_says_so_in_one_line(monkeypatch, capsys):
    import gpu_step

    monkeypatch.setattr(gpu_step.importlib.util, "find_spec", lambda name: None)
    assert gpu_step.main([]) == 2
    assert capsys.readouterr().err == "error: this benchmark needs PyTorch: pip install torch\n"


@pytest.mark.parametrize("bad", [["--model", "mlp-leaky"], ["--precision", "half"], ["--native"]])
def test_bad_options(bad):
    import gpu_step

    with pytest.raises(SystemExit, match="2"):
        gpu_step.main(bad)


FIGURES = {
    "tinygan": [0.0001, 0.0002, 0.0009],
    "tinygan, not captured": [0.001, 0.001, 0.001],
    "PyTorch eager": [0.002, 0.0015, 0.002],
    "PyTorch eager, foreach Adam": [0.003, 0.003, 0.003],
    "PyTorch reduce-overhead": [0.0005, 0.0004, 0.0003],
    "PyTorch graph": [0.0002, 0.0002, 0.0001],
}


@pytest.fixture
def made_up(monkeypatch):
    """gpu_step on contenders that take the times of FIGURES."""
    import gpu_step
    import harness

    def compare(contenders, threads, rounds, steps, say):
        about = {"versions": {"torch": "9"}, "peak_rss": 1}
        names = [c.name for c in contenders if c.name in figures]
        return [harness.Result(name, figures[name], about) for name in names]

    figures = dict(FIGURES)
    monkeypatch.setattr(gpu_step, "compare", compare)
    monkeypatch.setattr(gpu_step, "find_device", lambda name: {"device": "GPU 9", "driver": "1.2"})
    return figures


def test_the_report_of_a_comparison(made_up, tmp_path):
    pytest.importorskip("torch")
    import gpu_step

    words = ["--model", "mlp-batchnorm", "--batch", "64", "--precision", "tf32"]
    assert gpu_step.main([*words, "--out", str(tmp_path / "r")]) == 0
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["device"] == "GPU 9"
    assert record["driver"] == "1.2"
    assert record["precision"] == "tf32"
    assert record["versions"] == {"torch": "9"}
    (run,) = record["runs"]
    assert run["against"]["eager"]["best"] == "PyTorch eager"
    assert 1 / run["against"]["eager"]["ratio_of_medians"] == pytest.approx(10.0)
    text = (tmp_path / "r.md").read_text()
    assert "| tinygan | 0.2000 | 0.1000 | 5,000 | 1.00 |" in text
    assert "| PyTorch eager, foreach Adam | 3.0000 | 3.0000 | 333 | 15.00 |" in text
    assert "- PyTorch eager takes **10.00** times our median (target: at least 5.00)" in text
    assert (
        "- PyTorch reduce-overhead takes **2.00** times our median (target: at least 2.00)" in text
    )
    assert "- PyTorch graph takes **1.00** times our median (target: at least 0.83)" in text


def test_what_does_not_work_is_in_no_ratio(made_up, tmp_path, capsys):
    pytest.importorskip("torch")
    import gpu_step

    del made_up["PyTorch graph"]
    words = ["--model", "dcgan-tf", "--out", str(tmp_path / "r")]
    assert gpu_step.main(words) == 0
    assert "PyTorch graph" not in (tmp_path / "r.md").read_text()
    del made_up["tinygan"]
    assert gpu_step.main(words) == 0
    assert "times our median" not in (tmp_path / "r.md").read_text()
    made_up.clear()
    assert gpu_step.main(words) == 1
    assert capsys.readouterr().err == "error: a run has no contender that works\n"


def test_the_program_from_end_to_end_on_the_cpu(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    import gpu_step

    every = gpu_step.contenders
    few = ("tinygan", "PyTorch eager", "PyTorch graph")

    def three(*arguments):
        return [c for c in every(*arguments) if c.name in few]

    monkeypatch.setattr(gpu_step, "contenders", three)
    words = ["--device", "cpu", "--model", "mlp-batchnorm", "--batch", "4", "--threads", "1"]
    words += ["--rounds", "2", "--steps", "1", "--out", str(tmp_path / "r")]
    assert gpu_step.main(words) == 0
    assert "PyTorch graph: left out: RuntimeError: torch.cuda" in capsys.readouterr().out
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["device"].startswith("no GPU: the program tried out on the CPU")
    assert record["versions"].keys() >= {"numpy", "torch", "tinygan"}
    rows = record["runs"][0]["contenders"]
    assert rows.keys() == {"tinygan", "PyTorch eager"}
    assert all(len(row["samples_ms"]) == 2 for row in rows.values())
    assert (tmp_path / "r.md").read_text().startswith("# One training step on a CPU, as a trial\n")


def test_a_step_that_could_not_be_captured_is_not_timed(monkeypatch):
    import gpu_contenders

    from tinygan.backend.numpy_backend import NumpyBackend
    from tinygan.errors import CaptureWarning

    def refused(self, step):
        import warnings

        def uncaptured():
            warnings.warn("this step runs without a CUDA graph", CaptureWarning, stacklevel=2)
            step()

        return uncaptured

    monkeypatch.setattr(NumpyBackend, "capture", refused)
    with pytest.raises(CaptureWarning):
        gpu_contenders.ours("mlp-batchnorm", 4, 0, device="cpu")
    gpu_contenders.ours("mlp-batchnorm", 4, 0, captured=False, device="cpu")


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_our_step_is_captured_on_cupy(cupy_standin, precision):
    import gpu_contenders

    cupy_standin()
    prepared = gpu_contenders.ours("mlp-batchnorm", 4, 0, precision=precision)
    prepared.step()
    prepared.wait()
    assert prepared.about["device"].startswith("Stand-in GPU")
    assert prepared.about["precision"] == precision
    game = prepared.step.__self__
    assert type(game.moves).__name__ == "CapturedStep"
    losses = {precision: float(game.game.d_loss)}
    for other in ("float32", "tf32"):
        options = {"captured": False, "precision": other}
        uncaptured = gpu_contenders.ours("mlp-batchnorm", 4, 0, **options).step
        uncaptured()
        equal = float(uncaptured.__self__.game.d_loss) == losses[precision]
        assert equal == (other == precision)  # the stand-in rounds as tensor cores do
    assert game.noise.step == uncaptured.__self__.noise.step == gpu_contenders.WARM_UPS + 1


@pytest.mark.parametrize("model", ["mlp-batchnorm", "dcgan-tf"])
def test_progress_is_required_of_a_captured_step(model):
    torch = pytest.importorskip("torch")
    import dcgan_contenders
    import gpu_contenders
    import mlp_contenders

    if model == "dcgan-tf":
        game = dcgan_contenders.Theirs(4, 0, False)
    else:
        game = mlp_contenders.Theirs(4, 0, {}, False)
    gpu_contenders.require_progress(game, game.step)
    with pytest.raises(RuntimeError, match="leaves parameters as they are"):
        gpu_contenders.require_progress(game, lambda: None)
    with torch.no_grad(), pytest.raises(RuntimeError, match="leaves parameters as they are"):
        gpu_contenders.require_progress(game, game.ascend_D)  # G stays where it is


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler uses what PyTorch deprecates
@pytest.mark.parametrize("model", ["mlp-batchnorm", "dcgan-tf"])
def test_the_compiled_step_is_the_eager_one(model):
    torch = pytest.importorskip("torch")
    import dcgan_contenders
    import gpu_contenders
    import mlp_contenders

    z, losses = torch.randn(4, 100), []
    shape = (4, 1, 28, 28) if model == "dcgan-tf" else (4, 784)
    x = torch.rand(shape) * 2 - 1
    for form in ("eager", "compiled"):
        if model == "dcgan-tf":
            game = dcgan_contenders.Theirs(4, 0, False, dropout=False)
        else:
            game = mlp_contenders.Theirs(4, 0, {}, False)
        game.draw_noise, game.sample = lambda: z, lambda: x
        step = getattr(gpu_contenders, form)(game)
        losses.append([])
        for _ in range(3):
            step()
            losses[-1] += [float(game.d_loss), float(game.g_loss)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[0][0] != pytest.approx(losses[0][-2], rel=1e-3)  # it is not that nothing moves


# ---- gpu_timeline ------------------------------------------------------------------------------


def test_totals_of_a_timeline():
    from gpu_timeline import REST, Event, table, totals

    events = [  # two steps; two kernels run side by side for a while
        Event("gemm", 10.0, 14.0),
        Event("adam", 12.0, 16.0),
        Event("gemm", 18.0, 22.0),
        Event("adam", 22.0, 30.0),
    ]
    run = totals(events, steps=2)
    assert run["us_per_step"] == 10.0
    rows = {row["name"]: (row["count"], row["us"], row["share"]) for row in run["rows"]}
    assert rows == {"adam": (1, 6.0, 0.6), "gemm": (1, 4.0, 0.4), REST: (0, 1.0, 0.1)}
    text = table({"title": "a step", **run})
    assert "### a step: 10.0 µs" in text
    assert text.index("| adam | 1 | 6.00 | 60.0% |") < text.index("| gemm | 1 | 4.00 | 40.0% |")


def test_a_timeline_from_end_to_end_on_the_cpu(tmp_path):
    import gpu_timeline

    words = ["--device", "cpu", "--model", "mlp-batchnorm", "--batch", "4", "--steps", "2"]
    assert gpu_timeline.main([*words, "--out", str(tmp_path / "t")]) == 0
    record = json.loads((tmp_path / "t.json").read_text())
    (run,) = record["runs"]  # no row of what is captured: it is one piece
    counts = {row["name"]: row["count"] for row in run["rows"]}
    assert counts["adam"] == 2
    assert counts["gather_images"] == 1
    assert counts["batch_norm"] == 6
    assert "column_sums" not in counts  # a part of others
    assert sum(row["share"] for row in run["rows"]) == pytest.approx(1.0)


def test_marks_on_a_device_are_its_events():
    import gpu_timeline

    class Cuda:
        Event = type("Event", (), {"record": lambda self: recorded.append(self)})
        get_elapsed_time = staticmethod(lambda a, b: recorded.index(b) - recorded.index(a))

    recorded = []
    backend = SimpleNamespace(name="cupy", xp=SimpleNamespace(cuda=Cuda))
    mark, since = gpu_timeline._clock(backend)
    first, second = mark(), mark()
    assert recorded == [first, second]
    assert since(first, second) == 1e3  # an event's time is in milliseconds


# ---- crossover ---------------------------------------------------------------------------------

NUMPY = [(64, 1.0), (256, 4.0), (1024, 16.0)]


@pytest.mark.parametrize(
    ("cupy", "width", "words"),
    [
        (None, None, "CuPy: no device here"),
        ([2.0, 2.0, 2.0], 128.0, "CuPy is faster from width 128 on"),
        ([0.5, 0.5, 0.5], 0.0, "CuPy is faster throughout"),
        ([9.0, 9.0, 20.0], None, "NumPy is faster at the largest width"),
        ([9.0, 1.0, 20.0], None, "NumPy is faster at the largest width"),
        ([0.5, 8.0, 8.0], 512.0, "CuPy is faster from width 512 on"),
    ],
)
def test_where_lines_cross(cupy, width, words):
    from crossover import crossing, in_words

    found = {"numpy": NUMPY}
    if cupy:
        found["cupy"] = [(w, ms) for (w, _), ms in zip(NUMPY, cupy, strict=True)]
    assert crossing(found) == (width if width is None else pytest.approx(width))
    assert in_words(found) == words


def test_the_page_and_the_picture_of_both(tmp_path):
    import crossover

    points = [
        {"width": w, "batch": b, "processor_ms": ms, "ms": {"numpy": [2 * ms, ms], "cupy": [2.0]}}
        for b in (16, 64)
        for w, ms in NUMPY
    ]
    record = {"threads": 1, "gpu": {"device": "GPU 9"}, "versions": {"numpy": "2"}}
    text = crossover.page(record | {"points": points})
    assert "- gpu: device: GPU 9" in text
    assert "## Batch 16: CuPy is faster from width 128 on" in text
    assert "| width | NumPy | CuPy | NumPy's processor |" in text
    assert "| 256 | 4.000 (6.000) | 2.000 (2.000) | 4.000 |" in text
    crossover.draw(record | {"points": points}, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_without_a_device_numpy_is_measured_alone(monkeypatch, tmp_path):
    import crossover

    monkeypatch.setattr(crossover, "find_device", without_device)
    words = ["--width", "64", "32", "--batch", "4", "--rounds", "2", "--note", "busy"]
    assert crossover.main([*words, "--out", str(tmp_path / "c")]) == 0
    record = json.loads((tmp_path / "c.json").read_text())
    assert record["gpu"] == {"no device": "the package cupy is not installed: do this"}
    assert record["note"] == "busy"
    assert [(p["width"], p["batch"], list(p["ms"])) for p in record["points"]] == [
        (32, 4, ["numpy"]),
        (64, 4, ["numpy"]),
    ]
    assert all(len(p["ms"]["numpy"]) == 2 and p["processor_ms"] > 0 for p in record["points"])
    text = (tmp_path / "c.md").read_text()
    assert "## Batch 4: CuPy: no device here" in text
    assert (tmp_path / "c.png").exists()
    (tmp_path / "c.md").unlink()
    assert crossover.main(["--redraw", "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c.md").read_text() == text


def test_the_networks_are_as_wide_as_they_say():
    from crossover import recipe
    from mlp_contenders import Ours

    game = Ours(4, 0, preset=recipe(32)).game
    assert game.G.parameter_count == 101 * 32 + 33 * 32 + 33 * 784
    assert game.D.parameter_count == 785 * 32 + 33 * 32 + 33
