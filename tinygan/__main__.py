"""python -m tinygan: look at runs, sample from them, measure them. Training is in examples/."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinygan import __version__
from tinygan.backend import NAMES
from tinygan.run import commands
from tinygan.run.arguments import OneLineParser, one_line_errors, whole
from tinygan.run.evaluate import KINDS


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m tinygan`."""
    main = OneLineParser(prog="python -m tinygan", description=__doc__, allow_abbrev=False)
    main.add_argument("--version", action="version", version=f"tinygan {__version__}")
    choose = main.add_subparsers(metavar="COMMAND", required=True, dest="command")

    sample = choose.add_parser("sample", help="draw images from a trained G")
    _add_run(sample)
    _add_checkpoint(sample)
    sample.add_argument("--n", type=whole(1), default=64, metavar="N", help="how many (64)")
    sample.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="FILE.npz (`samples`, float32 NHWC in the data's range, and `labels`) or FILE.png "
        "(a grid); default: RUN/generated.npz",
    )
    sample.add_argument(
        "--labels",
        metavar="L",
        help="what to ask of a conditional G, in turn: balanced (every label, the default) "
        "or some of them, such as 0,1,2",
    )
    sample.set_defaults(run_command=commands.sample)

    info = choose.add_parser("info", help="what a run is and how far it is")
    _add_run(info)
    info.set_defaults(run_command=commands.info)

    presets = choose.add_parser("presets", help="the recipes that can be trained by name")
    presets.set_defaults(run_command=commands.presets)

    evaluate = choose.add_parser("evaluate", help="measure a run; kept in RUN/evaluation.json")
    _add_run(evaluate)
    _add_checkpoint(evaluate)
    evaluate.add_argument(
        "--metric",
        choices=KINDS,
        required=True,
        help="parzen: log-likelihood, as in 2014; agreement: how often a classifier of real images "
        "sees the label that G was asked for; modes: how many modes of a known mixture G covers",
    )
    evaluate.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the idx files")
    evaluate.add_argument(
        "--split",
        choices=("test", "validation"),
        help="the images that parzen scores (test); validation is for choosing a checkpoint",
    )
    evaluate.set_defaults(run_command=commands.evaluate)

    export = choose.add_parser("export", help="write G or D for other libraries")
    _add_run(export)
    _add_checkpoint(export, seed=False)
    export.add_argument("--player", choices=("G", "D"), default="G", help="which one (G)")
    export.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FILE",
        help="FILE.safetensors: named tensors, and in its metadata what the layers are",
    )
    export.set_defaults(run_command=commands.export)
    return main


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder")


def _add_checkpoint(command: argparse.ArgumentParser, seed: bool = True) -> None:
    add = command.add_argument
    add("--checkpoint", type=whole(0), metavar="STEP", help="instead of the newest checkpoint")
    add(
        "--average-from",
        type=whole(0),
        metavar="STEP",
        help="take the mean of G's weights over every kept checkpoint from STEP on",
    )
    if seed:
        add("--seed", type=whole(0, 2**64 - 1), default=0, metavar="S", help="of the noise z (0)")
    add(
        "--refresh",
        type=whole(1),
        default=0,
        metavar="N",
        help="first let BatchNorm's running statistics take in N new minibatches of this G",
    )
    add("--backend", choices=NAMES, default="auto")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; a bad input prints `error: ...` and exits with status 2."""
    with one_line_errors():
        given = parser().parse_args(argv)
        given.run_command(given)


if __name__ == "__main__":
    main()
