"""Options that several commands share, in groups.

Values stay text here; they are read inside the command, where the libraries are loaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
GRID_NAMES = ("ternary", "2", "3", "4", "8")
OUTPUT_FORMATS = ("text", "json", "markdown")


def members(package: str) -> tuple[str, ...]:
    """Names of the plug-ins in a package: its files, without importing any."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.py")]
    return tuple(sorted(file.stem for file in files if file.stem[0] != "_" and file.stem != "base"))


def apply(*groups: tuple[Decorator, ...]) -> Decorator:
    """All options of the groups on one command, in this order in its help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for group in reversed(groups):
            for option in reversed(group):
                function = option(function)
        return function

    return decorate


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
        if context.obj is not None and value:
            setattr(context.obj, name, value)
        return value

    return remember


MODEL = (click.argument("model", metavar="MODEL"),)

READING = (
    click.option(
        "--input-shape",
        "input_shapes",
        metavar="NAME=1,3,224,224",
        multiple=True,
        help="Shape of an input that the model leaves open; repeatable.",
    ),
    click.option(
        "--model",
        "torch_factory",
        metavar="MODULE:FUNCTION",
        help="Function that builds the network of a PyTorch state dict; runs that code, so it "
        "needs --trust-input.",
    ),
    click.option(
        "--trust-input",
        is_flag=True,
        help="Allow inputs that can run code when they are loaded.",
    ),
)

OUTPUT = (
    click.option("-o", "--output", metavar="FILE", required=True, help="ONNX file to write."),
    click.option("--force", is_flag=True, help="Overwrite an output that exists."),
)

PREPROCESS = (
    click.option(
        "--preprocess",
        metavar="KEY=VALUE,...",
        help="From stored samples to the model's input: scale=1/255, mean=0.5:0.5:0.5, "
        "std=0.2:0.2:0.2, layout=nhwc->nchw, reshape=28:28.",
    ),
)

CALIBRATION = (
    click.option(
        "--data",
        metavar="SPEC",
        help="Calibration data: npz, npy, safetensors, IDX, a folder of images, or random:SEED. "
        "Labels are not used for calibration.",
    ),
    click.option(
        "--calibration",
        metavar="N",
        type=click.IntRange(min=1),
        default=1024,
        show_default=True,
        help="Use at most N samples of --data.",
    ),
    click.option(
        "--test-data",
        metavar="SPEC",
        help="Data for the accuracy before and after; --data if not given.",
    ),
    *PREPROCESS,
)

TARGETS = (
    click.option(
        "--target",
        "targets",
        metavar="NAME|FILE",
        multiple=True,
        help="Device to predict latency for, by name (see targets list) or TOML file; repeatable. "
        "Ranks follow the first one.",
    ),
)

DECOMPOSE = (
    click.option(
        "--format",
        "format_name",
        metavar="NAME",
        type=click.Choice(("auto", *members("edgecompress.formats"))),
        help="Decomposition format: auto (the best per layer), "
        + ", ".join(members("edgecompress.formats"))
        + ".",
    ),
    click.option("--rank", metavar="N[,N]", help="The same ranks for every layer."),
    click.option(
        "--energy",
        metavar="SHARE",
        help="Keep this share of the energy (squared singular values) of every layer.",
    ),
    click.option(
        "--param-ratio", metavar="SHARE", help="Leave this share of every layer's parameters."
    ),
    click.option(
        "--target-params",
        metavar="SHARE|N",
        help="Parameters that may remain in all: 50%, 0.5 or 120k.",
    ),
    click.option(
        "--target-macs",
        metavar="SHARE|N",
        help="Multiply-accumulates that may remain in all: 50%, 0.5 or 20M.",
    ),
    click.option(
        "--target-latency",
        metavar="SHARE|TIME",
        help="Predicted latency that may remain on the first --target: 50%, 0.5 or 2ms.",
    ),
    click.option(
        "--tolerance",
        metavar="SHARE",
        help="Decompose as far as at most this share of the largest outputs changes on "
        "calibration data held back. Default where no other rank rule is given: 1%.",
    ),
    click.option(
        "--rank-multiple",
        metavar="N",
        type=click.IntRange(min=0),
        help="Ranks are multiples of N; 0 follows the target.",
    ),
)

QUANTIZE = (
    click.option(
        "--bits",
        metavar="GRID",
        type=click.Choice(GRID_NAMES),
        help="Weights as ternary, 2, 3, 4 or 8 bits; what is on such a grid already is packed as "
        "it is. Default: 4.",
    ),
    click.option(
        "--method",
        metavar="NAME",
        type=click.Choice(members("edgecompress.quantizers")),
        help="Quantizer: "
        + ", ".join(members("edgecompress.quantizers"))
        + ". Default: hessian; l2 for layers without data.",
    ),
    click.option(
        "--activations",
        metavar="BITS",
        type=click.Choice(("8",)),
        help="8-bit activations as well; convolutions need --data for their ranges.",
    ),
    click.option(
        "--per-tensor/--per-channel",
        default=None,
        help="One scale per weight, or one per output channel. Default: per "
        "channel; per tensor with --method vecq, as published.",
    ),
    click.option(
        "--keep-names/--shorten-names",
        default=None,
        help="Keep the internal tensor names in the written file. Default: shorten; inputs and "
        "outputs always keep theirs.",
    ),
)

RECIPE = (
    click.option(
        "--rule",
        "rules",
        metavar="PATTERN:SETTING,...",
        multiple=True,
        help="Exception for the layers that match an exact name, a pattern with * ? [ or "
        "re:REGEX; the first that matches counts. Settings: skip, bits=8, format=none, ranks=8x8. "
        "Repeatable.",
    ),
    click.option(
        "--recipe", metavar="FILE", help="Settings from a TOML file; options override it."
    ),
)

PLAN = (
    click.option("--plan", metavar="FILE", help="Do exactly what this plan says."),
    click.option(
        "--save-plan",
        metavar="FILE",
        help="Write the plan here instead of beside the output (OUTPUT.plan.json).",
    ),
)

SEED = (
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(min=0),
        help="Seed of everything random. Default: 0.",
    ),
)

RULES = (*RECIPE, *PLAN, *SEED)

GATE_LATENCY = (
    click.option(
        "--max-latency", metavar="TIME", help="Exit 3 if the predicted latency is above: 5ms."
    ),
)

GATE_MIN_ACCURACY = (
    click.option(
        "--min-accuracy", metavar="SHARE", help="Exit 3 if the accuracy is below: 90% or 0.9."
    ),
)

GATE_ACCURACY = (
    click.option(
        "--max-drop",
        metavar="SHARE",
        help="Exit 3 if more accuracy (agreement without labels) is lost: 0.5% or 0.005.",
    ),
    *GATE_MIN_ACCURACY,
)

GATE_SIZE = (
    click.option("--max-size", metavar="SIZE", help="Exit 3 if the file is larger: 250KiB, 1.5MB."),
)

REPORTING = (
    click.option(
        "--report",
        "reports",
        metavar="FILE",
        multiple=True,
        help="Write the report to a file, in the form of its suffix: .txt .json .md .html; "
        "repeatable.",
    ),
    click.option(
        "--output-format",
        type=click.Choice(OUTPUT_FORMATS),
        default="text",
        show_default=True,
        help="Form of the report on stdout.",
    ),
    click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember("quiet"),
        help="No progress on stderr.",
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember("debug"),
        help="Tracebacks and the log of libraries on stderr.",
    ),
)
