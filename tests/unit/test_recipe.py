"""Recipes: what each key becomes, and what each mistake is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.options import (
    Budget,
    DecomposeOptions,
    EnergyRank,
    FixedRanks,
    Gates,
    LayerRule,
    ParameterRatio,
    QuantizeOptions,
)
from edgecompress.core.recipe import load_recipe, parse_recipe

FULL = """
schema = "edgecompress.recipe/1"
seed = 3
targets = ["winocnn-zcu102-w6", "boards/mine.toml"]
preprocess = "scale=1/255,mean=0.5,std=0.5"

[decompose]
format = "tucker2"
target_macs = "60%"
rank_multiple = 8
minimum_gain = 0.2

[quantize]
bits = "ternary"
method = "vecq"
per_channel = false
activations = 8
keep_names = true

[gates]
max_size = "250KiB"
max_latency = "5ms"
max_drop = "0.5%"
min_accuracy = 0.9

[[rules]]
match = "conv1"
skip = true

[[rules]]
match = "re:layer[12]/.*"
bits = 8
format = "svd"
ranks = [4, 4]
"""


def test_every_key() -> None:
    rules = (
        LayerRule(match="conv1", skip=True),
        LayerRule(match="re:layer[12]/.*", bits="8", format="svd", ranks=(4, 4)),
    )
    recipe = parse_recipe(FULL)
    assert recipe.decompose == DecomposeOptions(
        format="tucker2",
        ranks=Budget("macs", ratio=0.6),
        rank_multiple=8,
        minimum_gain=0.2,
        rules=rules,
        seed=3,
    )
    assert recipe.quantize == QuantizeOptions(
        bits="ternary",
        method="vecq",
        per_channel=False,
        activations=8,
        keep_names=True,
        rules=rules,
        seed=3,
    )
    assert recipe.gates == Gates(
        max_size_bytes=256000, max_latency_s=0.005, max_drop=0.005, min_accuracy=0.9
    )
    assert recipe.preprocess is not None
    assert recipe.preprocess.mean == (0.5,)
    assert recipe.targets == ("winocnn-zcu102-w6", "boards/mine.toml")
    assert recipe.seed == 3


def test_an_empty_recipe_is_the_defaults() -> None:
    recipe = parse_recipe("")
    assert recipe.decompose == DecomposeOptions()
    assert recipe.quantize == QuantizeOptions()
    assert recipe.gates == Gates()
    assert recipe.preprocess is None


def test_a_step_can_be_left_out() -> None:
    recipe = parse_recipe("[decompose]\nenabled = false\n[quantize]\nenabled = false")
    assert recipe.decompose is None
    assert recipe.quantize is None


@pytest.mark.parametrize(
    ("line", "ranks"),
    [
        ("ranks = [8, 16]", FixedRanks((8, 16))),
        ("energy = 0.95", EnergyRank(0.95)),
        ("ratio = 0.5", ParameterRatio(0.5)),
        ("target_params = 0.5", Budget("params", ratio=0.5)),
        ("target_params = 100000", Budget("params", limit=100000)),
        ('target_macs = "20M"', Budget("macs", limit=20e6)),
        ('target_latency = "2ms"', Budget("latency", limit=0.002)),
        ('target_latency = "80%"', Budget("latency", ratio=0.8)),
    ],
)
def test_rank_rules(line: str, ranks: object) -> None:
    recipe = parse_recipe(f"[decompose]\n{line}")
    assert recipe.decompose is not None
    assert recipe.decompose.ranks == ranks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", "not valid TOML"),
        ("seed = 1\nseed = 2", "not valid TOML"),
        ("[quantise]\nbits = 4", "quantise: unknown key; did you mean 'quantize'?"),
        ("[quantize]\nbit = 4", "quantize.bit: unknown key; did you mean 'bits'?"),
        ("[gates]\nxyz = 4", "gates.xyz: unknown key; keys are max_size, max_latency"),
        ("[[rules]]\nmatch = 'a'\nrank = [1]", "rules[0].rank: unknown key; did you mean 'ranks'?"),
        ("[[rules]]\nskip = true", "rules[0].match: missing"),
        ("[[rules]]\nmatch = 're:('", "rules[0].match: not a regular expression"),
        ("[[rules]]\nmatch = 'a'\nranks = [0]", "rules[0].ranks[0]: should be greater than or"),
        ("schema = 'edgecompress.recipe/9'", "schema: should be 'edgecompress.recipe/1'"),
        ("[quantize]\nbits = 5", "quantize.bits: unknown grid '5'; one of ternary, 2, 3, 4, 8"),
        ("[quantize]\nbits = true", "quantize.bits: should be a valid string, not True"),
        ("[quantize]\nper_channel = 1", "quantize.per_channel: should be a valid boolean, not 1"),
        ("[quantize]\nactivations = 4", "quantize.activations: should be 8, not 4"),
        ("seed = -1", "seed: should be greater than or equal to 0, not -1"),
        ("seed = 1.5", "seed: should be a valid integer, not 1.5"),
        ("targets = 'one'", "targets: should be a valid list, not 'one'"),
        ("preprocess = 'scale=x'", "preprocess: scale=x: not a number"),
        ("[decompose]\nenergy = 1.5", "decompose.energy: should be less than or equal to 1"),
        ("[decompose]\nenergy = nan", "decompose.energy: should be"),
        (
            "[decompose]\nenergy = 0.9\nratio = 0.5",
            "decompose: give one of energy and ratio, not 2",
        ),
        ("[decompose]\ntarget_latency = '5'", "decompose.target_latency: '5': a unit is missing"),
        ("[gates]\nmax_size = '250'", "gates.max_size: '250': a unit is missing; units are B, kB"),
        ("[gates]\nmax_size = 250", "gates.max_size: should be a valid string, not 250"),
        ("[gates]\nmax_size = '250KB'", "gates.max_size: '250KB': unknown unit 'KB'"),
        ("[gates]\nmax_drop = '200%'", "gates.max_drop: '200%' is not between 0 and 1"),
    ],
)
def test_each_mistake_is_told(text: str, words: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        parse_recipe(text, where="my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert words in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        parse_recipe("seed = -1\ncolour = 'red'\n[quantize]\nbits = 5\nactivation = 8")
    text = str(caught.value)
    assert text.startswith("recipe: 4 errors: ")
    for words in ("seed: ", "colour: unknown key", "quantize.bits: ", "did you mean 'activations'"):
        assert words in text


def test_files_that_are_no_recipe(tmp_path) -> None:
    with pytest.raises(InputOutputFailed, match="No such file"):
        load_recipe(tmp_path / "none.toml")
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationInvalid, match="not UTF-8"):
        load_recipe(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigurationInvalid, match="at most 1 MiB"):
        load_recipe(path)
    path.write_text("a = " + "[" * 20000)
    with pytest.raises(ConfigurationInvalid, match="not valid TOML"):
        load_recipe(path)
    path.write_text("seed = 4\r\n")
    assert load_recipe(path).seed == 4


def test_the_examples_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        parse_recipe(example)
