"""The training steps of mlp_contenders.py and dcgan_contenders.py on a CUDA device.

tinygan on CuPy, captured or not; PyTorch eager, by torch.compile(mode="reduce-overhead") and as a
CUDA graph captured by hand. All draw their noise and their minibatches on the device, from uint8
images that lie there.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import subprocess
import warnings
from collections.abc import Callable
from typing import Any

import dcgan_contenders
import mlp_contenders
from harness import Prepared, rss

from tinygan.run.manifest import processor

MODELS = ("mlp-batchnorm", "dcgan-tf")
FORMS = ("eager", "compile", "graph")
WARM_UPS = 5  # steps before the first sample: tinygan and PyTorch compile and record in three

Step = Callable[[], object]


def add_gpu_options(parser: argparse.ArgumentParser, steps: int) -> argparse.ArgumentParser:
    """The options of the programs that time a GPU; `steps` in a sample, unless told otherwise."""
    parser.add_argument("--model", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--precision", choices=("float32", "tf32"), default="float32")
    # The tests try the programs out where there is no GPU.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.set_defaults(steps=steps)
    return parser


def find_device(name: str = "cuda") -> dict[str, Any]:
    """The device in words, with its driver; BackendError, in one line, where there is none."""
    from tinygan import get_backend

    host = processor()
    if name == "cpu":
        return {"device": f"no GPU: the program tried out on the CPU, {host}"}
    return {"device": get_backend("cupy").device, "driver": driver(), "processor": host}


def driver() -> str:
    """The version of the NVIDIA driver, as nvidia-smi says it."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=True).stdout
        return said.strip().splitlines()[0]
    return "unknown"


# ---- tinygan -------------------------------------------------------------------------------------


def ours(
    model: Any,
    batch: int,
    seed: int,
    captured: bool = True,
    precision: str = "float32",
    device: str = "cuda",
) -> Prepared:
    """tinygan on CuPy (device "cpu", for trying this out: on NumPy)."""
    from tinygan.errors import CaptureWarning
    from tinygan.run.manifest import versions

    place = "cupy" if device == "cuda" else "numpy"
    game = mlp_contenders.Ours(
        batch, seed, preset=model, backend=place, precision=precision, captured=captured
    )
    after_imports = rss()
    with warnings.catch_warnings():
        # A step that could not be recorded must not be timed as one that was.
        warnings.simplefilter("error", CaptureWarning)
        for _ in range(WARM_UPS):
            game.step()
    about = {"versions": versions(place), "device": game.backend.device, "precision": precision}
    return Prepared(game.step, about, after_imports, game.backend.synchronise)


# ---- PyTorch -------------------------------------------------------------------------------------


def theirs(
    model: str,
    batch: int,
    seed: int,
    form: str,
    precision: str = "float32",
    device: str = "cuda",
    fused: bool = True,
    channels_last: bool = False,
) -> Prepared:
    """PyTorch in one of FORMS; `fused` is Adam's, `channels_last` the layout of images."""
    import torch

    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32  # PyTorch's own default is True
    torch.backends.cudnn.benchmark = True
    after_imports = rss()
    adam = {"capturable": True} if form == "graph" else {}
    if model == "dcgan-tf":
        game: Any = dcgan_contenders.Theirs(batch, seed, channels_last, device=device, **adam)
    else:
        game = mlp_contenders.Theirs(batch, seed, {"fused": fused, **adam}, False, device=device)
    step = {"eager": eager, "compile": compiled, "graph": graphed}[form](game)
    for _ in range(WARM_UPS):
        step()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return Prepared(step, about_torch(precision, device), after_imports, wait)


def about_torch(precision: str, device: str) -> dict[str, Any]:
    import torch
    from torch._dynamo.utils import counters

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda:
        versions["torch's CUDA"] = torch.version.cuda
        versions["cuDNN"] = str(torch.backends.cudnn.version())
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    skipped = counters["inductor"]["cudagraph_skips"]  # graphs that reduce-overhead left out
    return {
        "versions": versions,
        "device": name,
        "precision": precision,
        "cudagraph_skips": skipped,
    }


def eager(game: Any) -> Step:
    return game.step  # type: ignore[no-any-return]


def compiled(game: Any, mode: str = "reduce-overhead") -> Step:
    """Each loss, with its draws, is compiled as a whole; so is its way back."""
    import torch
    import torch._dynamo
    import torch._functorch.config

    for held in (game.images, game.one, game.zero):
        torch._dynamo.mark_static_address(held)  # else copied before each replay: 47 MB of images
    # The graph of dcgan-tf is walked back twice, once for each player.
    torch._functorch.config.donated_buffer = False
    for name in ("losses", "discriminator_loss", "generator_loss"):
        if hasattr(game, name):
            setattr(game, name, torch.compile(getattr(game, name), mode=mode, fullgraph=True))

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        game.step()

    return step


def graphed(game: Any) -> Step:
    """The whole step, draws and both Adams included, as one torch.cuda.CUDAGraph."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # PyTorch asks for a warm-up apart from the default stream
        for _ in range(3):
            game.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        game.step()
    require_progress(game, graph.replay)
    return graph.replay  # type: ignore[no-any-return]


def require_progress(game: Any, step: Step) -> None:
    """RuntimeError unless a step moves every parameter of both players."""
    parameters = [p.detach() for net in (game.G, game.D) for p in net.parameters()]
    before = [p.clone() for p in parameters]
    step()
    if any(bool((a == b).all()) for a, b in zip(parameters, before, strict=True)):
        raise RuntimeError("the captured step leaves parameters as they are")
