"""Recipes for training: what each key becomes, and what each mistake is told."""

from __future__ import annotations

import pytest

from edgecompress.cli.training_asked import TrainingAsked, settle_training
from edgecompress.core.errors import ConfigurationInvalid, UsageError
from edgecompress.core.options import Budget, FixedRanks, LayerRule, ParameterRatio
from edgecompress.core.quantities import read_budget
from edgecompress.core.recipe import parse_recipe
from edgecompress.core.recipe_train import TrainRecipe
from edgecompress.core.training import (
    AdaptationOptions,
    PrecisionOptions,
    TensorizeOptions,
    TrainOptions,
)
from edgecompress.pipeline.train import run_train

FULL = """
seed = 7

[train]
arch = "mlp"
epochs = 40
batch = 64
learning_rate = 0.01
weight_decay = 0.1
optimizer = "adamw"
validation = 0.2
patience = 3

[train.network]
hidden = [300, 100]
dropout = 0.1

[train.tensorize]
format = "tt"
ranks = [8, 4]
cores = 4
minimum_saving = 0.3

[train.adaptation]
prior = "half-cauchy"
scale = 0.5
inference = "bayesian"
strength = 0.1
target_params = "30x"
warm_up = [0.1, 0.4]
settle = 0.8
balance_epochs = 2
cut_at = 0.02
floor = 2

[train.precision]
factor_bits = 3
activation_bits = 6
gradient_bits = 12
master_bits = 0
state_bits = 16
rounding = "stochastic"

[[rules]]
match = "3"
format = "none"
"""


def test_every_key() -> None:
    recipe = parse_recipe(FULL).train
    assert recipe == TrainRecipe(
        arch="mlp",
        choices={"hidden": (300, 100), "dropout": 0.1},
        target_params=Budget("params", ratio=1 / 30),
        options=TrainOptions(
            tensorize=TensorizeOptions(
                format="tt",
                ranks=FixedRanks((8, 4)),
                cores=4,
                rules=(LayerRule(match="3", format="none"),),
                minimum_saving=0.3,
            ),
            adaptation=AdaptationOptions(
                prior="half-cauchy",
                scale=0.5,
                inference="bayesian",
                strength=0.1,
                warm_up=(0.1, 0.4),
                settle=0.8,
                balance_epochs=2,
                cut_at=0.02,
                floor=2,
            ),
            precision=PrecisionOptions(
                factor_bits=3,
                activation_bits=6,
                gradient_bits=12,
                master_bits=0,
                state_bits=16,
                rounding="stochastic",
            ),
            optimizer="adamw",
            learning_rate=0.01,
            weight_decay=0.1,
            epochs=40,
            batch=64,
            validation=0.2,
            patience=3,
            seed=7,
        ),
    )


def test_an_empty_recipe_has_the_defaults_of_the_options() -> None:
    assert parse_recipe("").train == TrainRecipe()


def test_adaptation_off_and_a_share_of_each_layer() -> None:
    recipe = parse_recipe("[train.tensorize]\nratio = 0.1\n[train.adaptation]\nenabled = false")
    assert recipe.train.options.adaptation is None
    assert recipe.train.options.tensorize.ranks == ParameterRatio(0.1)
    assert recipe.train.options.precision is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nepoch = 3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("[train]\nepochs = 0", "train.epochs: should be greater than or equal to 1, not 0"),
        ("[train]\noptimizer = 'sdg'", "train.optimizer: should be 'adam', 'adamw', 'sgd'"),
        ("[train]\nvalidation = 1.0", "train.validation: should be less than 1, not 1.0"),
        ("[train.tensorize]\nranks = [2]\nratio = 0.1", "give one of ranks and ratio, not 2"),
        ("[train.tensorize]\ncores = 1", "train.tensorize.cores: should be greater than"),
        ("[train.adaptation]\ntarget_params = 'x'", "'x' is neither a share (50%) nor an amount"),
        ("[train.adaptation]\nloss_tolerance = 'much'", "'much' is not a share"),
        ("[train.adaptation]\nwarm_up = [0.6, 0.5]", "the first share is above the second"),
        (
            "[train.adaptation]\nscale = 0.1",
            "scale has no effect: it is that of half-cauchy, not of log-uniform",
        ),
        (
            "[train.adaptation]\nenabled = false\ntarget_params = '3x'",
            "a target has no effect: adaptation is off",
        ),
        (
            "[train.adaptation]\ntarget_params = '3x'\nloss_tolerance = '2%'",
            "give one of target_params and loss_tolerance, not 2",
        ),
        ("[train.precision]\nmaster_bits = 20", "20 is not 0, 8 to 16, or 32"),
        ("[train.precision]\nstate_bits = 8", "8 is neither 16 nor 32"),
        ("[train.precision]\ngradient_bits = 24", "24 is not 8 to 16, or 32"),
        ("[train.precision]\nfactor_bits = 2", "train.precision.factor_bits: should be greater"),
    ],
)
def test_mistakes(text: str, words: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        parse_recipe(text)
    assert words in caught.value.message


def test_all_mistakes_are_told_at_once() -> None:
    text = "[train]\nepochs = 0\n[train.adaptation]\nfloors = 2\n[train.precision]\nstate_bits = 1"
    with pytest.raises(ConfigurationInvalid, match=r"3 errors: .*epochs.*floors.*state_bits"):
        parse_recipe(text)


MISNAMED = """
[train]
arch = "mpl"
epochs = 0
[train.network]
hiden = [3]
depth = 2
"""


def test_wrong_names_of_networks_and_settings_are_told_with_all_other_mistakes(tmp_path) -> None:
    (tmp_path / "r.toml").write_text(MISNAMED)
    with pytest.raises(ConfigurationInvalid) as caught:
        settle_training(asked(arch=None, recipe=str(tmp_path / "r.toml")))
    assert "2 errors" in caught.value.message
    assert "unknown architecture 'mpl'; did you mean 'mlp'?" in caught.value.message
    with pytest.raises(ConfigurationInvalid) as caught:
        settle_training(asked(arch="mlp", recipe=str(tmp_path / "r.toml")))
    assert "3 errors" in caught.value.message
    assert "mlp has no setting 'hiden'; mlp has no setting 'depth'" in caught.value.message


def test_a_tolerance_goes_over_the_target_of_a_recipe_and_the_other_way_round(tmp_path) -> None:
    (tmp_path / "r.toml").write_text("[train.adaptation]\ntarget_params = '30x'\n")
    found = settle_training(asked(recipe=str(tmp_path / "r.toml"), loss_tolerance="2%"))
    assert found.target_params is None
    (tmp_path / "r.toml").write_text("[train.adaptation]\nloss_tolerance = '2%'\n")
    found = settle_training(asked(recipe=str(tmp_path / "r.toml"), target_params="30x"))
    assert found.options.adaptation is not None
    assert found.options.adaptation.loss_tolerance is None


@pytest.mark.parametrize(
    ("text", "given", "words"),
    [
        (
            "target_params = '30x'\nsettle = 0.3",
            {"loss_tolerance": "2%"},
            "settle 0.3 is not after warm_up begins at 0.4",
        ),
        (
            "warm_up = [0.5, 0.6]",
            {"target_params": "30x"},
            "settle 0.3 is not after warm_up begins at 0.5",
        ),
    ],
)
def test_shares_of_a_recipe_are_judged_by_the_goal_of_the_run(
    tmp_path, text: str, given: dict[str, str], words: str
) -> None:
    (tmp_path / "r.toml").write_text(f"[train.adaptation]\n{text}\n")
    request = settle_training(asked(recipe=str(tmp_path / "r.toml"), **given))
    with pytest.raises(ConfigurationInvalid) as caught:
        run_train(request)
    assert words in str(caught.value)


def test_times_fewer() -> None:
    assert read_budget("params", "30x") == Budget("params", ratio=1 / 30)
    assert read_budget("macs", "1x") == Budget("macs", ratio=1.0)
    with pytest.raises(ValueError, match=r"'0\.5x' times less would be more"):
        read_budget("params", "0.5x")


def asked(**given: object) -> TrainingAsked:
    return TrainingAsked(data="d.npz", output="m.onnx", **{"arch": "mlp", **given})  # type: ignore[arg-type]


def test_options_go_over_the_recipe(tmp_path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(FULL)
    request = settle_training(
        TrainingAsked(
            data="d.npz",
            output="m.onnx",
            recipe=str(file),
            epochs=5,
            format_name="ttm",
            ranks="6",
            target_params="1000",
            bayesian=False,
            precision="4",
            rules=("1:skip",),
            seed=9,
        )
    )
    options = request.options
    assert request.arch == "mlp"
    assert request.target_params == Budget("params", limit=1000)
    assert (options.epochs, options.batch, options.seed) == (5, 64, 9)
    assert (options.tensorize.format, options.tensorize.ranks) == ("ttm", FixedRanks((6,)))
    assert [rule.match for rule in options.tensorize.rules] == ["1", "3"]
    assert options.adaptation is not None
    assert (options.adaptation.inference, options.adaptation.floor) == ("map", 2)
    assert options.precision is not None
    assert (options.precision.factor_bits, options.precision.state_bits) == (4, 16)


def test_fixed_ranks_and_float() -> None:
    request = settle_training(asked(adapt=False, precision="float"))
    assert request.options.adaptation is None
    assert request.options.precision is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arch": None}, "no network is named"),
        ({"device": "tpu"}, "--device: unknown device 'tpu'"),
        ({"format_name": "none", "ranks": "4"}, "--ranks has no effect"),
        ({"format_name": "none", "cores": 2}, "--cores has no effect"),
        ({"format_name": "none", "bayesian": True}, "--bayesian has no effect"),
        ({"format_name": "none", "loss_tolerance": "5%"}, "--loss-tolerance has no effect"),
        ({"shard": True}, "--shard spreads parameters over several processes, and there is one"),
        ({"rules": ("1:bits=8",)}, "--rule: bits by layer have no effect on training"),
        ({"target_params": "30x", "loss_tolerance": "2%"}, "exclude each other"),
        ({"torch_factory": "a:b"}, "--arch and --model exclude each other"),
        ({"resume": True}, "--resume needs --checkpoint"),
        ({"adapt": False, "prior": "log-uniform"}, "--prior has no effect: ranks are fixed"),
        ({"target_params": "0%"}, "--target-params: '0%' leaves nothing"),
        ({"validation": "100%"}, "--validation: nothing is left to learn from"),
        ({"ranks": "a"}, "--ranks: 'a' is not a list of positive whole numbers"),
        ({"loss_tolerance": "2"}, "--loss-tolerance: '2' is not between 0 and 1"),
    ],
)
def test_options_that_cannot_be(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        settle_training(asked(**given))
    assert words in str(caught.value)
