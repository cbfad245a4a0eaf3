"""``edgecompress train``."""

from __future__ import annotations

from typing import Any

import click

from edgecompress.cli import options
from edgecompress.cli.entry import Run
from edgecompress.training.factorized import format_names

OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "zeroth-order", "spsa")
PRIORS = ("log-uniform", "half-cauchy")
PRECISIONS = ("float", "3", "4", "5", "6", "7", "8")


def architectures() -> tuple[str, ...]:
    """Names of the networks that can be trained from scratch."""
    files = options.members("edgecompress.training.architectures")
    return tuple(name.replace("_", "-") for name in files)


NETWORK = (
    click.option(
        "--arch",
        metavar="NAME",
        type=click.Choice(architectures()),
        help="Network to train: " + ", ".join(architectures()) + ".",
    ),
    click.option(
        "--from",
        "start",
        metavar="FILE",
        help="Begin with these weights: a PyTorch state dict (.pth, .pt, .safetensors) of the "
        "network. Default: from scratch.",
    ),
)

DATA = (
    click.option(
        "--data",
        metavar="SPEC",
        required=True,
        help="Samples to learn from, with labels: npz, safetensors, IDX, or a folder of images.",
    ),
    click.option("--test-data", metavar="SPEC", help="Samples to measure the result on."),
    *options.PREPROCESS,
)

TENSORS = (
    click.option(
        "--format",
        "format_name",
        metavar="NAME",
        type=click.Choice(("auto", "none", *format_names())),
        help="Factors of the layers: auto, none (train dense), "
        + ", ".join(format_names())
        + ". Default: auto.",
    ),
    click.option("--ranks", metavar="N[,N]", help="Ranks to start from, the same for every layer."),
    click.option(
        "--cores",
        metavar="N",
        type=click.IntRange(min=2, max=12),
        help="Cores of a factorization. Default: the format's choice.",
    ),
)

ADAPTATION = (
    click.option(
        "--adapt-ranks/--fixed-ranks",
        "adapt",
        default=None,
        help="Let ranks fall while training, or keep those of the start. Default: adapt.",
    ),
    click.option(
        "--target-params",
        metavar="SHARE|N",
        help="Parameters that may remain in all: 30x (times fewer), 3%, 13500 or 13.5k.",
    ),
    click.option(
        "--loss-tolerance",
        metavar="SHARE",
        help="Cut ranks as far as the loss rises by this share: 2% or 0.02.",
    ),
    click.option(
        "--prior",
        type=click.Choice(PRIORS),
        help="On the standard deviation of a rank's slices. Default: log-uniform.",
    ),
    click.option(
        "--bayesian/--map",
        "bayesian",
        default=None,
        help="Sample factors around their means, or train points. Default: points.",
    ),
)

TRAINING = (
    click.option(
        "--precision",
        metavar="BITS",
        type=click.Choice(PRECISIONS),
        help="Train with factors of 3 to 8 bits (activations 8, gradients 16), or float. "
        "Default: float.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        help="zeroth-order and spsa train without back-propagation. Default: adam.",
    ),
    click.option("--epochs", metavar="N", type=click.IntRange(min=1), help="Default: 20."),
    click.option(
        "--batch",
        metavar="N",
        type=click.IntRange(min=1),
        help="Samples of a step, over all processes. Default: 128.",
    ),
    click.option(
        "--learning-rate",
        metavar="RATE",
        type=click.FloatRange(min=0, min_open=True),
        help="At the start; falls to zero along half a cosine. Default: 0.002, of zeroth-order 1.",
    ),
    click.option(
        "--validation",
        metavar="SHARE",
        help="Share of --data that is held back to judge by. Default: 10%.",
    ),
    click.option(
        "--patience",
        metavar="N",
        type=click.IntRange(min=1),
        help="End after N epochs without a better validation loss, and keep the best weights.",
    ),
)

CARRYING_OUT = (
    click.option(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:1. Default: an accelerator if there is one.",
    ),
    click.option(
        "--checkpoint", metavar="FILE", help="Keep the state of the run here after every epoch."
    ),
    click.option(
        "--resume", is_flag=True, help="Continue from --checkpoint if it is there, bit for bit."
    ),
    click.option(
        "--shard",
        is_flag=True,
        help="Under torchrun: spread dense parameters over the processes (FSDP2).",
    ),
)


@click.command("train")
@options.apply(
    NETWORK,
    DATA,
    options.OUTPUT,
    TENSORS,
    ADAPTATION,
    TRAINING,
    options.RECIPE,
    options.SEED,
    CARRYING_OUT,
    options.GATE_SIZE,
    options.GATE_MIN_ACCURACY,
    options.READING,
    options.REPORTING,
)
@click.pass_obj
def train(run: Run, /, **values: Any) -> None:
    """Train a network whose layers are tensor factors from the start, and write it as ONNX.

    Ranks are found while it trains; the written graph is what quantize, compress and
    estimate-latency take.

    \b
    edgecompress train --arch mlp --data train-images.gz --test-data t10k-images.gz \\
        --preprocess scale=1/255 --target-params 30x -o small.onnx --report small.html
    """
    from edgecompress.cli.training import run_training

    run_training(values, run)
