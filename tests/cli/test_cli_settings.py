"""Options become the settings of the pipeline; what contradicts itself is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecompress.cli.asked import Asked, Settings, settle
from edgecompress.cli.described import settings_as_text
from edgecompress.cli.reading import read_input_shapes
from edgecompress.cli.rules import read_rule
from edgecompress.core.errors import UsageError
from edgecompress.core.options import (
    Budget,
    EnergyRank,
    FixedRanks,
    LayerRule,
    ParameterRatio,
    Tolerance,
)


def settled(command: str = "compress", **options: Any) -> Settings:
    return settle(Asked(command=command, model="m.onnx", output="o.onnx", **options))


@pytest.mark.parametrize(
    ("option", "text", "rule"),
    [
        ("rank", "8", FixedRanks((8,))),
        ("rank", "8,4", FixedRanks((8, 4))),
        ("energy", "0.95", EnergyRank(0.95)),
        ("tolerance", "1%", Tolerance(0.01)),
        ("param_ratio", "50%", ParameterRatio(0.5)),
        ("target_params", "120k", Budget("params", limit=120_000)),
        ("target_macs", "50%", Budget("macs", ratio=0.5)),
        ("target_macs", "0.25", Budget("macs", ratio=0.25)),
        ("target_latency", "2ms", Budget("latency", limit=0.002)),
    ],
)
def test_ranks(option: str, text: str, rule: object) -> None:
    settings = settled(**{option: text}, targets=("roofline-generic",))
    assert settings.decompose
    assert settings.decompose.ranks == rule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": "8", "energy": "0.9"}, "--rank and --energy exclude each other"),
        ({"rank": "0"}, "'0' is not a list of positive whole numbers"),
        ({"energy": "0"}, "leaves nothing"),
        ({"target_latency": "5"}, "a unit is missing"),
        ({"target_latency": "50%"}, "--target-latency needs a --target"),
        ({"max_latency": "5ms"}, "--max-latency needs a --target"),
        ({"max_size": "100"}, "a unit is missing"),
        ({"max_drop": "1%"}, "--max-drop needs --data or --test-data"),
        ({"min_accuracy": "90%"}, "--min-accuracy needs --data or --test-data"),
        ({"max_drop": "2", "data": "d.npz"}, "not between 0 and 1"),
        ({"decompose": False, "quantize": False}, "neither decomposition nor quantization"),
        ({"decompose": False, "rank": "8"}, "--rank has no effect: decomposition is off"),
        ({"quantize": False, "bits": "3"}, "--bits has no effect: quantization is off"),
        ({"rules": ("conv1",)}, "is not of the form PATTERN:"),
        ({"rules": ("conv1:bits=5",)}, "bits is one of ternary, 2, 3, 4, 8"),
        ({"rules": ("re:(:skip",)}, "is not a regular expression"),
        ({"rules": ("a:skip,skip",)}, "'skip' is given twice"),
        ({"rules": ("a:color=red",)}, "is not a setting"),
        ({"rules": ("a:ranks=8x",)}, "ranks are written as 8 or 8x8"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settled(**options)
    assert message in str(caught.value)


def test_a_command_takes_its_own_step_only() -> None:
    assert settled("decompose").quantize is None
    assert settled("quantize").decompose is None
    both = settled("compress")
    assert both.decompose
    assert both.quantize


def test_options_override_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'seed = 3\ntargets = ["systolic-ws-32"]\n[quantize]\nbits = 3\nactivations = 8\n'
        '[decompose]\nenergy = 0.9\n[gates]\nmax_size = "1MB"\n'
        '[[rules]]\nmatch = "fc"\nskip = true\n'
    )
    plain = settled(recipe=str(recipe))
    assert plain.quantize
    assert (plain.quantize.bits, plain.quantize.activations, plain.seed) == ("3", 8, 3)
    assert plain.targets == ("systolic-ws-32",)
    assert plain.gates.max_size_bytes == 1_000_000
    over = settled(
        recipe=str(recipe), bits="2", seed=5, rank="4", rules=("fc:bits=8",), max_size="2MB"
    )
    assert over.quantize
    assert over.decompose
    assert (over.quantize.bits, over.quantize.seed, over.quantize.activations) == ("2", 5, 8)
    assert over.decompose.ranks == FixedRanks((4,))
    assert over.gates.max_size_bytes == 2_000_000
    assert over.quantize.rules == (
        LayerRule(match="fc", bits="8"),
        LayerRule(match="fc", skip=True),
    )


def test_rules() -> None:
    assert read_rule("model/conv:0:bits=8,format=none") == LayerRule(
        match="model/conv:0", bits="8", format="none"
    )
    assert read_rule("re:conv[0-9]+:skip") == LayerRule(match="re:conv[0-9]+", skip=True)
    assert read_rule("((([:ranks=8x4") == LayerRule(match="((([", ranks=(8, 4))


def test_input_shapes() -> None:
    assert read_input_shapes(("x=1,3,224,224", "a=b=2x4")) == {"x": (1, 3, 224, 224), "a=b": (2, 4)}
    for wrong in (("1,3",), ("x=1,-1",), ("x=",), ("=1,2",), ("x=1", "x=2")):
        with pytest.raises(UsageError):
            read_input_shapes(wrong)


def test_vecq_has_one_scale_per_tensor_unless_asked_otherwise(tmp_path: Path) -> None:
    """Source: VecQ (arXiv 2005.08501), which has one scale for a layer."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[quantize]\nmethod = "vecq"\n')
    other = tmp_path / "other.toml"
    other.write_text("[quantize]\nper_channel = true\n")
    found = [
        settled("quantize", **options).quantize
        for options in (
            {},
            {"method": "l2"},
            {"method": "vecq"},
            {"recipe": str(recipe)},
            {"method": "vecq", "per_tensor": False},
            {"method": "vecq", "recipe": str(other)},
            {"method": "hessian", "recipe": str(recipe)},
            {"per_tensor": True},
        )
    ]
    per_channel = [each.scales_per_channel for each in found if each is not None]
    assert per_channel == [True, True, False, False, True, True, True, False]


def test_everything_assumed_is_told() -> None:
    asked = Asked(command="compress", model="m.onnx", output="o.onnx")
    texts = settings_as_text(settle(asked), asked)
    assert texts["ranks"] == "a tolerance of 0.01 on the outputs"
    assert texts["bits"] == "4"
    assert texts["method"] == "hessian (without data)"
    assert texts["activations"] == "float"
    assert texts["data"] == "none"


def test_the_plan_is_written_beside_the_output() -> None:
    assert Asked(command="c", model="m", output="d/o.onnx").plan_file == "d/o.plan.json"
    assert Asked(command="c", model="m", output="o.onnx", save_plan="p.json").plan_file == "p.json"
