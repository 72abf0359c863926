"""The command line that every training example shares."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from tinygan.backend import NAMES
from tinygan.data import CURVES, WORLDS
from tinygan.gan import ORDERS
from tinygan.gan.objectives import LOSSES, OBJECTIVES
from tinygan.gan.penalties import PENALTIES
from tinygan.presets import EXAMPLES, PAIRS, PRESETS, Labels, Preset
from tinygan.run.arguments import OneLineParser, label, not_negative, one_of, positive, whole

DATA = {"images": ("mnist", "strokes", "auto"), "points": WORLDS, "curves": CURVES}
CONDITIONAL = {"one-hot": Labels(10), "embedding": Labels(10, 50)}  # the digits


def make_parser(description: str | None, presets: Mapping[str, Preset]) -> argparse.ArgumentParser:
    parser = OneLineParser(
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # only what was given is in the result
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--preset", type=_preset_of(presets), metavar="NAME", help=", ".join(presets))
    add("--backend", choices=NAMES, help="where to compute (default: auto)")
    add("--dtype", choices=("float32", "float64"), help="default: float32")
    add(
        "--precision",
        choices=("float32", "tf32"),
        help="of products on a GPU; tf32 is faster and rounds more (default: float32)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=whole(1), metavar="N", help="updates of G in total")
    length.add_argument(
        "--epochs", type=whole(1), metavar="N", help="passes over the data in total"
    )
    add("--batch-size", type=whole(1), metavar="M", help="samples in a minibatch")
    add("--k", type=whole(1), metavar="K", help="updates of D for each update of G")
    add("--order", choices=tuple(ORDERS), help="who moves when")
    add(
        "--objective",
        choices=(*OBJECTIVES, *PAIRS),
        help="what the players want; wgan-gp and the like name objective, penalty and k at once",
    )
    add("--loss", choices=tuple(LOSSES), help="the form of the cross entropy")
    add("--penalty", choices=("none", *PENALTIES), help="on D's gradient at its inputs")
    add("--penalty-weight", type=positive, metavar="W", help="of the penalty (default: 10)")
    add("--clip", type=positive, metavar="C", help="keep D's parameters in [-C, C]")
    add("--real-target", type=label, metavar="T", help="D's label for real: 0.9, say, smooths it")
    add("--instance-noise", type=not_negative, metavar="STD", help="noise on all that D sees")
    add("--packing", type=whole(1), metavar="P", help="samples that D judges at once (PacGAN)")
    add("--d-norm", choices=("layer",), help="LayerNorm in place of D's BatchNorm")
    add("--lr", type=positive, metavar="LR", help="learning rate of both players")
    add("--seed", type=whole(0, 2**64 - 1), metavar="S", help="all randomness (default: 0)")
    add(
        "--conditional",
        nargs="?",
        const="one-hot",
        choices=tuple(CONDITIONAL),
        help="tell both players the digit, one-hot or as a learned vector",
    )
    add("--prior", choices=("normal", "uniform"), help="of z, both with variance 1")
    add("--data", type=_data_of(presets), metavar="DATA", help=_data_help(presets))
    add("--data-dir", type=Path, metavar="DIR", help="folder that holds the idx files")
    add("--out", type=Path, metavar="DIR", help="a new run folder (default: runs/PRESET-DATE)")
    add("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    add("--checkpoint", type=whole(0), metavar="STEP", help="resume from this older checkpoint")
    add("--sample-every", type=whole(1), metavar="N", help="steps between pictures")
    add("--checkpoint-every", type=whole(1), metavar="N", help="steps between checkpoints")
    add("--log-every", type=whole(1), metavar="N", help="steps between rows of metrics.csv")
    add("--keep-last", type=whole(1), metavar="K", help="newest checkpoints kept (default: 3)")
    add("--keep-every", type=whole(1), metavar="M", help="keep each M-th step's checkpoint, too")
    add(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        help="write event files for TensorBoard into the run folder",
    )
    if any(preset.kind == "curves" for preset in presets.values()):
        add("--live", action="store_true", help="draw in a window as the training goes")
    return parser


def _preset_of(presets: Mapping[str, Preset]) -> Callable[[str], str]:
    """A preset's name; one that the other example trains is answered with that example."""
    known = one_of(presets, "preset")

    def convert(text: str) -> str:
        if text in PRESETS and text not in presets:
            raise argparse.ArgumentTypeError(f"{text} is trained by examples/{EXAMPLES[text]}")
        return known(text)

    return convert


def _names_of_data(presets: Mapping[str, Preset]) -> tuple[str, ...]:
    return tuple(name for kind in {p.kind: 0 for p in presets.values()} for name in DATA[kind])


def _takes_files(presets: Mapping[str, Preset]) -> bool:
    return any(preset.kind == "points" for preset in presets.values())


def _data_of(presets: Mapping[str, Preset]) -> Callable[[str], str]:
    """The name of a data set, or a file of points where the presets play in the plane."""
    known = one_of(_names_of_data(presets), "data set")

    def convert(text: str) -> str:
        if _takes_files(presets) and text.endswith(".npy"):
            return str(Path(text).absolute())
        try:
            return known(text)
        except argparse.ArgumentTypeError as problem:
            files = ", or a FILE.npy with points (N, 2)" if _takes_files(presets) else ""
            raise argparse.ArgumentTypeError(f"{problem}{files}") from None

    return convert


def _data_help(presets: Mapping[str, Preset]) -> str:
    words = ", ".join(_names_of_data(presets))
    words += ", or FILE.npy with points (N, 2)" if _takes_files(presets) else ""
    return words + ("; auto: strokes where there is no MNIST" if "auto" in words else "")
