"""The gates of models with experts: what NumPy finds over the same examples."""

import funnel_log
import numpy as np
import pytest

import tfrs_dlrm as td
from tfrs_dlrm import plots
from tfrs_dlrm.config import DataConfig, MLPConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.tools.explain.expert_weights import expert_weights
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.tools.explain.sample import draw_sample
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return funnel_log.make(str(tmp_path_factory.mktemp("log")), 800)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def inputs(model, sample):
    """What the experts read: vectors of user and item, then the age."""
    features = sample.features(0, len(sample))
    return np.concatenate([*(v.numpy() for v in model.embeddings(features)), features["dense"].numpy()], axis=1)


def test_mean_weights_equal_numpy(data):
    schema = td.Schema.load(f"{data}/schema.json")
    sample = draw_sample(data, "eval", 150)
    model = td.EmbeddingMLP(schema, (4, 1), sharing="mmoe", experts=3, expert_mlp=(5,))
    model.build()
    kernel = model.top_mlp.mixture.gates.kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    (found,) = expert_weights(model, sample, batch_size=64)
    weights = softmax((inputs(model, sample) @ kernel.numpy()).reshape(150, 3, 3))
    np.testing.assert_allclose(found.mean, weights.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.spread, weights.std(axis=0), rtol=1e-4)
    assert found.labels == ["clicked", "purchase", "paid"] and found.examples == 150
    assert list(found.rows()["paid"]) == ["expert 1", "expert 2", "expert 3"]
    assert expert_weights(td.EmbeddingMLP(schema, (4, 1)), sample) == []


def test_levels_name_their_experts(data):
    schema = td.Schema.load(f"{data}/schema.json")
    sample = draw_sample(data, "eval", 100)
    model = td.EmbeddingMLP(schema, (4, 1), sharing="ple", experts=2, task_experts=1, expert_mlp=(5,))
    model.build()
    first, second = expert_weights(model, sample)
    assert first.labels == ["clicked", "purchase", "paid", "<shared>"] and second.labels == first.labels[:3]
    assert first.experts[1] == second.experts[1] == ["purchase 1", "shared 1", "shared 2"]
    assert first.experts[3] == ["clicked 1", "purchase 1", "paid 1", "shared 1", "shared 2"]
    np.testing.assert_allclose([sum(mean) for mean in first.mean + second.mean], 1, rtol=1e-5)
    shared = softmax(inputs(model, sample) @ model.top_mlp.mixture.levels[0].shared_gate.kernel.numpy())
    np.testing.assert_allclose(first.mean[3], shared.mean(axis=0), rtol=1e-5)
    deep = td.EmbeddingMLP(schema, (4, 1), sharing="ple", experts=1, task_experts=1, expert_mlp=(2,), expert_levels=11)
    deep.build()
    # The last level alone has no gate of shared experts.
    assert ["<shared>" in found.labels for found in expert_weights(deep, sample)] == [True] * 10 + [False]


def test_a_run_shows_its_gates(data, tmp_path):
    config = RunConfig(
        DataConfig(path=data),
        MLPConfig(embedding_dim=4, top_mlp=(4, 1), sharing="mmoe", experts=2, expert_mlp=(4,)),
        OptimizerConfig("adam", 0.01, "lazy_adam", 0.01),
        TrainConfig(batch_size=128, epochs=1, tensorboard=False),
    )
    workdir = str(tmp_path / "run")
    train_and_evaluate(config, workdir)
    found = explain_run(workdir, Questions(("gates",)))
    lines = found.text(5).splitlines()
    assert lines[0].startswith("Gates, level 1: mean weight of each expert over ")
    assert lines[2].split() == ["clicked", "purchase", "paid"] and lines[3].split()[:2] == ["expert", "1"]
    figures = plots.explanation(found.to_dict())
    assert list(figures) == ["gates"] and len(figures["gates"].axes) == 3
