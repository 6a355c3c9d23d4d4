"""What a plan says to its reader."""

import dataclasses
import re
from pathlib import Path

import pytest
from any_model import any_model

from tfrs_dlrm.config import MODELS, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table
from tfrs_dlrm.tools.planner import lines, parse_topology, plan

TERABYTE = Schema.load(Path(__file__).parents[3] / "docs" / "plans" / "criteo_terabyte.json")
CONFIG = RunConfig(
    model=DLRMConfig(128, bottom_mlp=(512, 256, 128), top_mlp=(1024, 1024, 512, 256, 1)),
    optimizer=OptimizerConfig(embedding="adagrad"),
    train=TrainConfig(batch_size=65536),
)


def planned(strategy, topology, schema=TERABYTE, config=CONFIG):
    return plan(schema, config, parse_topology(strategy, topology))


def test_what_fits_needs_no_remedies():
    assert planned("mirrored", "8x80GB").fits and planned("mirrored", "8x80GB").remedies == ()
    assert planned("mirrored", "8").fits is None and planned("mirrored", "8").remedies == ()


@pytest.mark.parametrize(
    "strategy, topology, remedies",
    [
        # 192 GB of tables and slots.
        ("mirrored", "2x80GB", {"--strategy=mirrored --topology=4x80GB", "optimizer.embedding=rowwise_adagrad"}),
        ("one_device", "80GB", {"--strategy=parameter_server --topology=2x512GB"}),
        ("multi_worker", "4x80GB", {"--strategy=parameter_server --topology=2x512GB"}),
        ("parameter_server", "2x64GB", {"--strategy=parameter_server --topology=4x64GB"}),
        ("tpu", "v4-8", {"--strategy=tpu --topology=v4-16", "model.embedding_dim=64"}),
        ("tpu", "v5e-16", {"--strategy=tpu --topology=v5p-8"}),
    ],
)
def test_remedies_do_what_they_say(strategy, topology, remedies):
    before = planned(strategy, topology)
    assert before.fits is False
    proposed = {r.change: r for r in before.remedies}
    assert remedies <= {change for change, r in proposed.items() if r.fits}
    assert all(r.need < before.need for r in before.remedies)
    text = "\n".join(lines(before))
    assert f"does not fit, {(before.need - before.usable) / 1e9:.3g} GB too much" in text
    for change, remedy in proposed.items():
        assert change in text
        if match := re.fullmatch(r"--strategy=(\w+) --topology=(\S+)", change):
            assert planned(*match.groups()).need == remedy.need
        elif change.startswith("model.embedding_dim"):
            half = dataclasses.replace(CONFIG.model, embedding_dim=64, bottom_mlp=(512, 256, 64))
            config = dataclasses.replace(CONFIG, model=half)
            assert planned(strategy, topology, config=config).need == remedy.need


def test_what_it_warns_of():
    def text(*arguments, **more):
        return "\n".join(planned(*arguments, **more).notes)

    assert "Every worker holds all 192 GB of tables and slots; parameter_server" in text("multi_worker", "4x80GB")
    assert "v5e has no embedding hardware: every chip holds all 192 GB" in text("tpu", "v5e-16")
    assert "Each host keeps a copy of its chips' tables and slots: 48" in text("tpu", "v4-32")
    rowwise = dataclasses.replace(
        CONFIG, optimizer=OptimizerConfig(embedding="rowwise_adagrad"), train=TrainConfig(batch_size=100)
    )
    assert "the plan takes adagrad for 16 tables" in text("tpu", "v4-32", config=rowwise)
    automatic = dataclasses.replace(CONFIG, optimizer=OptimizerConfig())
    assert "so optimizer.embedding=auto is adagrad here" in text("tpu", "v4-32", config=automatic)
    assert "tables by adagrad," in "\n".join(lines(planned("tpu", "v4-32", config=automatic)))
    assert "tables by rowwise_adagrad," in "\n".join(lines(planned("tpu", "v5e-16", config=automatic)))
    assert "batch_size=100 does not divide evenly among 8 replicas" in text("tpu", "v3-8", config=rowwise)
    half = Schema(
        Label("y"),
        categorical=(CategoricalFeature("a", separator="|"), CategoricalFeature("b")),
        tables=(Table("a", vocabulary_size=10**6, dtype="bfloat16"), Table("b", vocabulary_size=10**6)),
    )
    config = RunConfig(model=DLRMConfig(16, bottom_mlp=(16,), top_mlp=(1,)))
    assert "Tables of bfloat16 are float32 in TPU embedding memory" in text("tpu", "v4-8", schema=half, config=config)
    assert "Features a are taken to have 10 values in each example" in text("mirrored", "2", schema=half, config=config)
    pooled = dataclasses.replace(config, optimizer=OptimizerConfig(embedding_l2=0.1))
    assert "pools the rows of features a, so it has no l2" in text("tpu", "v4-8", schema=half, config=pooled)
    shared = dataclasses.replace(pooled, model=dataclasses.replace(config.model, shared_rows=10**5))
    assert "pools the rows of features a, so" in text("tpu", "v4-8", schema=half, config=shared)
    assert "cannot say whether the run fits" in text("mirrored", "2")
    one = Schema(Label("y"), TERABYTE.dense, (CategoricalFeature("a"),), (Table("a", vocabulary_size=10**8),))
    assert "has 3.70 times the mean of the lookups" in text("mirrored", "4x80GB", schema=one, config=config)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_remedies_that_it_can_follow(name):
    names = [f.name for f in TERABYTE.categorical]
    fields = dataclasses.asdict(CONFIG.model) | {"user": names[0], "item": names[9]}
    model = any_model(**fields | {"name": name})
    found = planned("mirrored", "2x1GB", config=dataclasses.replace(CONFIG, model=model))
    changes = {r.change for r in found.remedies}
    has_vectors = name != "logistic_regression"
    assert ("model.embedding_dim=64" in changes) == has_vectors
    assert ("model.mixed_dim_temperature=0.3" in changes) == (has_vectors and not model.one_dimension)
    dims = {t.placed.name: t.placed.dim for t in found.tables}
    if name == "matrix_factorization":
        assert {t: d for t, d in dims.items() if d > 1} == {names[0]: 129, names[9]: 129}
    else:
        assert set(dims.values()) == {128 + model.linear_weights if has_vectors else 1}
