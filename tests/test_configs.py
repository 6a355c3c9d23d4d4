"""Every class that Keras can save keeps every argument of its constructor in its config, and checks their types."""

import importlib
import inspect
import pkgutil

import pytest
import tf_keras as keras

import tfrs_dlrm
from tfrs_dlrm.layers import MixtureOfExperts
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    (DenseFeature("x"),),
    (CategoricalFeature("a"), CategoricalFeature("b")),
    (Table("a", 2, 5), Table("b", 2, 7)),
    group="query",
)
# An unusual value for each argument, by its name.
VALUES = {
    "schema": SCHEMA,
    "seed": 7,
    "replicate_below": 123,
    "bottom_mlp": [3, 2],
    "top_mlp": [5, 1],
    "self_interaction": True,
    "interaction": "dot",  # "cat" excludes self_interaction
    "dropout": 0.25,
    "batch_norm": True,
    "numbers": "mlp",  # "autodis" has no bottom_mlp
    "buckets": 5,
    "temperature": 0.5,
    "skip": 0.2,
    "user": "b",
    "item": "a",
    "cross_layers": 2,
    "cross_rank": 1,
    "cross_structure": "parallel",
    "dense_mlp": [4],
    "first_mlp": [3, 2],
    "second_mlp": [4],
    "gate_mlp": [3],
    "heads": 2,
    "outputs": 3,
    "mask_blocks": 2,
    "mask_units": 5,
    "mask_reduction": 1.5,
    "mask_structure": "serial",
    "reduction": 1.5,
    "attention_layers": 2,
    "attention_heads": 1,
    "attention_dim": 3,
    "interaction_maps": [3, 2],
    "sharing": "shared_bottom",  # the others need several labels
    "loss_weights": "fixed",
    "list_loss": "softmax",
    "list_loss_weight": 0.25,
    "experts": 3,
    "task_experts": 1,
    "shared_experts": 3,
    "expert_mlp": [4, 3],
    "expert_levels": 3,
    "tasks": 3,
    "levels": 3,
    "last": False,
    "count": 1,  # as many outputs as final_bias has
    "tower_mlp": [3, 1],
    "mixture": keras.layers.serialize(MixtureOfExperts([3], tasks=2, dtype="mixed_bfloat16")),
    "maps": [3, 2],
    "first_context": ["a"],
    "second_context": ["b", "a"],
    "units": [4, 2],
    "softmax": True,
    "attention_mlp": [3],
    "attention_softmax": True,
    "blocks": 2,
    "hidden": 5,
    "feed_forward": 6,
    "activation": "tanh",
    "final_activation": "relu",
    "use_bias": True,  # which final_bias needs
    "final_bias": [0.5, -0.25],
    "all_hidden": False,  # which final_activation needs
    "initial": 0.75,
    "calibration": {"method": "platt", "curves": [{"starts": [-1.0], "values": [0.5], "slopes": [2.0]}]},
    "linear": True,
    "parts": [["", 3], ["title", 2]],
    "rate": 0.5,
    "dim": 3,
    "layers": 2,
    "rank": 2,
    "learning_rate": 0.125,
    "l1": 0.25,
    "l2": 0.5,
    "weight_decay": 0.75,
    "initial_accumulator": 0.5,
    "epsilon": 0.01,
    "beta_1": 0.5,
    "beta_2": 0.25,
    "bins": 16,
    "features": ["a"],
    "name": "a_name",
    "dtype": "mixed_bfloat16",
    "trainable": False,
    "peak": 0.5,
    "warmup_steps": 3,
    "decay_start_step": 4,
    "decay_steps": 5,
    "end_learning_rate": 0.125,
    "power": 3.0,
    "factor": 0.5,
    "lowest": 0.25,
}
# Objects of the strategy in scope, which configs leave out, and arguments of layers that nobody gives.
NOT_IN_CONFIGS = {"self", "embeddings", "places", "kwargs"}
# Tested in tests/embeddings and tests/data, for want of simple values; and a layer of Keras.
OTHERWISE = {"PerTableOptimizer", "Encoder", "Dense"}


def classes() -> dict[str, type]:
    for module in pkgutil.walk_packages(tfrs_dlrm.__path__, "tfrs_dlrm."):
        if module.name.split(".")[1] in ("embeddings", "layers", "metrics", "models", "training"):
            importlib.import_module(module.name)
    names = keras.utils.get_custom_objects()
    return {n.removeprefix("tfrs_dlrm>"): c for n, c in names.items() if n.startswith("tfrs_dlrm>")}


# Layers and models; optimizers of tables check their numbers, and metrics have names.
CHECKED = [
    name
    for name, cls in classes().items()
    if cls.__module__.startswith(("tfrs_dlrm.layers", "tfrs_dlrm.models")) and name not in OTHERWISE
]


def arguments(cls: type) -> set[str]:
    """Those of the constructor, and of the constructors that get its `**kwargs`."""
    found: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            found |= set(parameters)
            if "kwargs" not in parameters or not base.__module__.startswith("tfrs_dlrm"):
                break
    layers = {"name", "dtype", "trainable"} if "kwargs" in found else set()
    return (found | layers) - NOT_IN_CONFIGS - {"args", "dynamic"}


def some_values(name: str, cls: type) -> dict:
    given = {argument: VALUES[argument] for argument in arguments(cls)}
    return given | {"schema": SCHEMA.with_dim(1)} if name == "LogisticRegression" else given


def wrong_values(argument: str, value: object) -> list:
    """Values of other types, and numbers of things that are too small."""
    least = 0 if argument in ("rank", "cross_rank", "replicate_below") else 1
    if isinstance(value, bool):
        return [1, "yes", None]
    if isinstance(value, int):
        return [2.5, "2", True, [2], *([least - 1] if argument != "seed" else [])]
    if isinstance(value, float):
        return ["0.5", True, [0.5]]
    if isinstance(value, str):
        return [3, ["a"]]
    if isinstance(value, list) and isinstance(value[0], int):
        return [3, "3-2", [3, 2.5], ["3"], [True], [0, 1]]
    return [3, "text"] if isinstance(value, list) else []


@pytest.mark.parametrize("name", CHECKED)
def test_wrong_types_are_refused_when_an_object_is_made(name):
    cls = classes()[name]
    given = some_values(name, cls)
    for argument, value in given.items():
        if argument in ("name", "dtype", "trainable", "activation", "final_activation"):  # Keras' own
            continue
        for wrong in wrong_values(argument, value):
            with pytest.raises(ValueError) as error:
                cls(**given | {argument: wrong})
            assert argument in str(error.value), error.value
            assert any(text in str(error.value) for text in (f"{wrong!r}", str(wrong), "None")), error.value


def test_every_argument_is_in_the_config():
    for name, cls in classes().items():
        if name in OTHERWISE:
            continue
        given = some_values(name, cls)
        config = cls(**given).get_config()
        for argument, value in given.items():
            if argument not in ("schema", "dtype"):
                assert config[argument] == value, f"{name}: {argument}"
        again = cls.from_config(config)
        assert type(again) is cls and again.get_config() == config, name
        if "dtype" in given:
            assert again.dtype_policy.name == VALUES["dtype"], name
