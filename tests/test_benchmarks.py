"""The benchmark's two contenders compute the same step, and the harness times what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tinygan.backend.numpy_backend import NumpyBackend

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

CONTENDERS = """
import time
from harness import Prepared, rss

def sleeper(seconds):
    print("a library's print must not be taken for an answer")
    return Prepared(lambda: time.sleep(seconds), {"slept": seconds}, rss())

def broken():
    raise RuntimeError("no compiler here\\nand many lines more")

def dies():
    import os
    os._exit(3)

def tires():
    import sys
    left = [0, 0, 0, 0, 0]
    def step():
        print(200_000 * "talk ", file=sys.stderr)
        left.pop()
    return Prepared(step, {}, rss())
"""


@pytest.fixture
def harness(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    (tmp_path / "toy_contenders.py").write_text(CONTENDERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    import harness

    return harness


def test_harness_takes_turns_and_leaves_out_what_fails(harness):
    def toy(name, make, environment=None, **options):
        return harness.Contender(name, f"toy_contenders:{make}", options, environment or {})

    said: list[str] = []
    results = harness.compare(
        [
            toy("quick", "sleeper", seconds=0.001),
            toy("broken", "broken"),
            toy("dies", "dies"),
            toy("tires", "tires"),
            toy("slow", "sleeper", {"OPENBLAS_CORETYPE": "Haswell"}, seconds=0.01),
        ],
        threads=1,
        rounds=3,
        steps=2,
        say=said.append,
    )
    assert [r.name for r in results] == ["quick", "slow"]
    quick, slow = results
    assert len(quick.samples) == len(slow.samples) == 3
    assert 0.001 <= quick.minimum <= quick.median
    assert 0.01 <= slow.minimum <= slow.median
    assert said[0] == "broken: left out: RuntimeError: no compiler here"
    assert said[1].startswith("dies: left out: ")
    assert said[2] == "tires: left out: IndexError: pop from empty list"
    assert len(said) == 3
    # native means native: the caller's own setting does not reach the workers
    assert quick.about["coretype"] is None
    assert slow.about["coretype"] == "Haswell"
    assert quick.about["slept"] == 0.001
    assert quick.about["threads"] == 1
    assert 0 < quick.about["rss_after_imports"] <= quick.about["peak_rss"]


def test_ratios(harness):
    import mlp_step

    def result(name, samples, peak):
        return harness.Result(name, samples, {"peak_rss": peak})

    run = mlp_step.summary(
        [
            result("tinygan", [0.002, 0.003, 0.009], 30),
            result("PyTorch eager", [0.006, 0.006, 0.001], 200),
            result("PyTorch eager, fused Adam", [0.004, 0.004, 0.004], 100),
        ]
    )
    assert run["best"] == "PyTorch eager, fused Adam"
    assert run["ratio_of_medians"] == pytest.approx(0.75)
    assert run["median_of_ratios"] == pytest.approx(0.75)
    assert run["ratio_of_minima"] == pytest.approx(2.0)
    assert run["memory_ratio"] == pytest.approx(0.3)


def test_without_torch_it_says_so_in_one_line(harness, monkeypatch, capsys):
    import mlp_step

    monkeypatch.setattr(mlp_step.importlib.util, "find_spec", lambda name: None)
    assert mlp_step.main(["--check"]) == 2
    assert capsys.readouterr().err == "error: this benchmark needs PyTorch: pip install torch\n"


@pytest.mark.parametrize("bad", [["--batch", "0"], ["--rounds", "-1"], ["--native", "--pinned"]])
def test_bad_options(harness, bad):
    import mlp_step

    with pytest.raises(SystemExit, match="2"):
        mlp_step.main(bad)


def test_tinygan_and_pytorch_compute_the_same_step():
    pytest.importorskip("torch")
    program = [sys.executable, str(BENCHMARKS / "mlp_step.py"), "--check", "--batch", "16"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok") == 10


def test_the_check_sees_a_planted_mistake(harness, monkeypatch):
    pytest.importorskip("torch")
    import mlp_contenders

    honest = mlp_contenders.Ours.__init__

    def wrong_beta(self, *arguments):
        honest(self, *arguments)
        self.D_optimiser.beta1 = 0.9

    monkeypatch.setattr(mlp_contenders.Ours, "__init__", wrong_beta)
    differences = mlp_contenders.check(8, 0, "float64", 2)  # Adam's first step knows no beta
    assert differences["D's parameters"] > 1e-9


def test_the_products_alone_are_those_of_a_step(harness, monkeypatch):
    import mlp_contenders

    m, made, due = 16, Counter(), Counter()
    step = mlp_contenders.Ours(m, 0).step

    def listened(make):
        def product(self, a, b, *rest, **options):
            made[a.shape, b.shape] += 1
            return make(self, a, b, *rest, **options)

        return product

    for name in ("affine", "matmul", "matmul_add"):
        monkeypatch.setattr(NumpyBackend, name, listened(getattr(NumpyBackend, name)))
    step()
    for counts, n_in, n_out in mlp_contenders.products():
        shapes = ((m, n_in), (n_in, n_out)), ((n_in, m), (m, n_out)), ((m, n_out), (n_out, n_in))
        due.update({shape: count for shape, count in zip(shapes, counts, strict=True) if count})
    assert made == due


@pytest.mark.parametrize(("theirs", "moved"), [(False, False), (True, False), (False, True)])
def test_the_products_alone_run(harness, theirs, moved):
    if theirs:
        pytest.importorskip("torch")
    import mlp_contenders

    prepared = mlp_contenders.products_alone(16, 0, theirs, 1, moved)
    prepared.step()
    assert set(prepared.about) == {"blas", "versions"}


def test_plain_numpy_is_no_rival(harness):
    import report

    results = [
        harness.Result("tinygan", [0.1], {"peak_rss": 1}),
        harness.Result("PyTorch", [0.2], {"peak_rss": 2}),
        harness.Result("plain", [0.7], {"peak_rss": 1}),
    ]
    run = report.summary(results, apart=("plain",))
    assert run["best"] == "PyTorch"
    assert run["ratio_of_medians"] == pytest.approx(0.5)
    assert run["apart"] == {"plain": pytest.approx(7.0)}


@pytest.mark.parametrize("rival", ["naive", "default", "channels_last", "shortcuts"])
@pytest.mark.parametrize("dropout", [True, False])
def test_all_compute_the_same_step_of_the_dcgan(harness, rival, dropout):
    if rival != "naive":
        pytest.importorskip("torch")
    import dcgan_contenders

    differences = dcgan_contenders.check(rival, 4, 0, "float64", 2, dropout)
    assert set(differences) >= {"D's gradient", "G's gradient", "G's parameters"}
    assert max(differences.values()) < 1e-9


def test_the_check_of_the_dcgan_sees_a_planted_mistake(harness, monkeypatch):
    import dcgan_contenders
    import naive_dcgan

    def off_by_one(self, x):
        y = honest(self, x)
        return y if self.stride == 1 else naive_dcgan.np.roll(y, 1, axis=2)

    honest = naive_dcgan.ConvTransposed.forward
    monkeypatch.setattr(naive_dcgan.ConvTransposed, "forward", off_by_one)
    assert dcgan_contenders.check("naive", 4, 0, "float64", 1, False)["G's gradient"] > 1e-3
