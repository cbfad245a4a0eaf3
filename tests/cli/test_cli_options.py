"""Options are public: one that disappears or appears is a change of this list."""

from __future__ import annotations

from typing import get_args

import click
import pytest

from edgecompress.cli import options
from edgecompress.cli.entry import COMMANDS, program
from edgecompress.core import training
from edgecompress.core.grids import GRIDS

READING = {"--input-shape", "--model", "--trust-input"}
REPORTING = {"--report", "--output-format", "--quiet", "--debug"}
OUTPUT = {"-o", "--output", "--force"}
CALIBRATION = {"--data", "--calibration", "--test-data", "--preprocess"}
RANKS = {
    "--format",
    "--rank",
    "--energy",
    "--tolerance",
    "--param-ratio",
    "--target-params",
    "--target-macs",
    "--target-latency",
    "--rank-multiple",
}
QUANTIZE = {
    "--bits",
    "--method",
    "--activations",
    "--per-tensor",
    "--per-channel",
    "--keep-names",
    "--shorten-names",
}
HEAL = {"--heal", "--heal-epochs", "--heal-rate", "--heal-samples", "--heal-augment"} | {
    "--heal-macs",
    "--heal-params",
    "--heal-strength",
}
RULES = {"--rule", "--recipe", "--plan", "--save-plan", "--seed"}
GATES = {"--max-size", "--max-latency", "--max-drop", "--min-accuracy"}
RUN = READING | REPORTING | OUTPUT | CALIBRATION | RULES | GATES | {"--target"}
EXPECTED = {
    "compress": RUN
    | RANKS
    | HEAL
    | QUANTIZE
    | {"--decompose", "--no-decompose", "--quantize", "--no-quantize"},
    "decompose": RUN | RANKS | HEAL,
    "quantize": RUN | QUANTIZE,
    "train": READING
    | REPORTING
    | OUTPUT
    | {"--arch", "--from", "--data", "--test-data", "--preprocess", "--rule", "--recipe"}
    | {"--format", "--ranks", "--cores", "--adapt-ranks", "--fixed-ranks", "--target-params"}
    | {"--loss-tolerance", "--prior", "--bayesian", "--map", "--precision", "--optimizer"}
    | {"--epochs", "--batch", "--learning-rate", "--validation", "--patience", "--seed"}
    | {"--device", "--checkpoint", "--resume", "--shard", "--max-size", "--min-accuracy"},
    "estimate-latency": READING
    | REPORTING
    | {
        "--target",
        "--per-layer",
        "--max-latency",
        "--strict",
        "--assume-bits",
        "--sweep",
        "--training-step",
        "--optimizer",
        "--gradient-bits",
        "--master-bits",
    },
    "explore": READING
    | REPORTING
    | {"--target", "--part", "--vary", "--assume-bits", "--objective", "--networks", "--weight"}
    | {"--max-dsp", "--max-bram18", "--max-lut", "--max-ports", "--max-bandwidth"}
    | {"--points", "--refine", "--seed", "--state", "--pick", "--write-target"},
    "rtl": READING
    | REPORTING
    | OUTPUT
    | {"--target", "--set", "--rows", "--columns", "--layer", "--data", "--preprocess"}
    | {"--pixels", "--seed", "--run", "--simulator", "--synthesize"},
    "evaluate": READING
    | REPORTING
    | {"--reference", "--data", "--limit", "--preprocess", "--target"}
    | {"--max-drop", "--min-accuracy"},
    "simulate": READING
    | REPORTING
    | {"--target", "--layer", "--data", "--samples", "--rows", "--seed", "--preprocess"},
    "inspect": READING | REPORTING,
    "targets": set(),
    "schema": set(),
}


def command(name: str) -> click.Command:
    found = program.get_command(click.Context(program), name)
    assert found is not None
    return found


def names(found: click.Command) -> set[str]:
    return {
        name
        for parameter in found.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_options(name: str) -> None:
    assert names(command(name)) == EXPECTED[name]


def test_commands() -> None:
    assert list(COMMANDS) == list(program.list_commands(click.Context(program)))
    assert set(COMMANDS) == set(EXPECTED)
    group = command("targets")
    assert isinstance(group, click.Group)
    assert group.list_commands(click.Context(group)) == ["list", "show", "check", "calibrate"]


def test_every_option_has_a_help_text() -> None:
    for name in COMMANDS:
        for parameter in command(name).params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.opts)


def test_grids_are_those_of_the_core() -> None:
    assert set(options.GRID_NAMES) == set(GRIDS)


def test_options_of_train_are_those_of_the_core() -> None:
    choices = {
        parameter.name: tuple(parameter.type.choices)
        for parameter in command("train").params
        if isinstance(parameter.type, click.Choice)
    }
    assert choices["optimizer"] == get_args(training.TrainingOptimizer)
    assert choices["prior"] == get_args(training.Prior)
    assert choices["format_name"][:2] == ("auto", "none")
    assert {"tt", "ttm", "cp", "tucker"} <= set(choices["format_name"])
    assert {"mlp", "lenet", "resnet20", "ds-cnn", "transformer"} <= set(choices["arch"])


def test_plug_ins_are_found_without_importing_them() -> None:
    assert {"svd", "channel", "tucker2", "spatial", "cp", "tt"} == set(
        options.members("edgecompress.formats")
    )
    assert {"vecq", "hessian"} <= set(options.members("edgecompress.quantizers"))
