"""Checkpoints of facebookresearch/dlrm: the scores of its model in NumPy, and in PyTorch if it is installed."""

import dataclasses
import itertools
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

DENSE = 5


def numbers(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32) / np.sqrt(shape[-1])


def state_dict(rows, dim, bottom, top, interaction):
    """Random tensors under the names of the reference code; of tables with several values per example too."""
    vectors = len(rows) + 1
    width = {"dot": vectors * (vectors - 1) // 2, "itself": vectors * (vectors + 1) // 2, "cat": (vectors - 1) * dim}
    state = {f"emb_l.{i}.weight": numbers(i, n, dim) for i, n in enumerate(rows)}
    for name, units in (("bot_l", (DENSE, *bottom)), ("top_l", (bottom[-1] + width[interaction], *top))):
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(units)):
            state[f"{name}.{2 * i}.weight"] = numbers(i, fan_out, fan_in)
            state[f"{name}.{2 * i}.bias"] = numbers(i, fan_out)
    return state


def mlp(state, name, x):
    layers = sorted(int(key.split(".")[1]) for key in state if key.startswith(name) and key.endswith("bias"))
    for i in layers:
        x = x @ state[f"{name}.{i}.weight"].T + state[f"{name}.{i}.bias"]
        if (name, i) != ("top_l", layers[-1]):
            x = np.maximum(x, 0)
    return x


def bag(state, i, ids):
    """The vector of one example's ids in table i: an EmbeddingBag of mode "sum"."""
    if f"emb_l.{i}.weight_q" in state:
        quotient, remainder = state[f"emb_l.{i}.weight_q"], state[f"emb_l.{i}.weight_r"]
        return quotient[ids // len(remainder)].sum(0) * remainder[ids % len(remainder)].sum(0)
    table = state.get(f"emb_l.{i}.weight", state.get(f"emb_l.{i}.embs.weight"))
    vector = (state.get(f"v_W_l.{i}", np.ones(len(table)))[ids, None] * table[ids]).sum(0)
    return vector @ state[f"emb_l.{i}.proj.weight"].T if f"emb_l.{i}.proj.weight" in state else vector


def probabilities(state, dense, bags, interaction):
    """Scores of the reference model; `bags` has for each table the ids of each example."""
    bottom = mlp(state, "bot_l", dense)
    vectors = [bottom, *(np.stack([bag(state, i, ids) for ids in table]) for i, table in enumerate(bags))]
    interacted = vectors[1:]
    if interaction != "cat":
        pairs = [(i, j) for i in range(len(vectors)) for j in range(i + (interaction == "itself"))]
        interacted = [np.stack([(vectors[i] * vectors[j]).sum(1) for i, j in pairs], axis=1)]
    return 1 / (1 + np.exp(-mlp(state, "top_l", np.concatenate([bottom, *interacted], axis=1))[:, 0]))


def schema_of(tables, order=None, multi_valued=()):
    """A schema of the tables, features `f0`, `f1`, ... in an order."""
    names = [f"f{i}" for i in (range(len(tables)) if order is None else order)]
    features = (
        CategoricalFeature(n, encoding="ids", dtype="int64", out_of_range="error", multi_valued=n in multi_valued)
        for n in names
    )
    dense = tuple(DenseFeature(f"x{i}") for i in range(DENSE))
    return Schema(Label("y"), dense, tuple(features), tuple(tables))


def with_history(schema):
    """The schema with the last two values of `f0`."""
    history = CategoricalFeature("h", sequence_length=2, history_of="f0")
    return dataclasses.replace(schema, categorical=(*schema.categorical, history))


def batch(schema, size, seed=0):
    """A batch for our model; and for the reference, its dense features and for each table the ids of each example."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(size, DENSE)).astype(np.float32)
    bags = {}
    for i in range(len(schema.categorical)):
        feature = next(f for f in schema.categorical if f.name == f"f{i}")
        counts = rng.integers(0, 4, size) if feature.multi_valued else np.ones(size, int)
        bags[feature.name] = [rng.integers(0, schema.table(feature.name).vocabulary_size, n) for n in counts]
    features = {"dense": dense}
    if schema.one_hot:
        features["ids"] = np.stack([np.concatenate(bags[f.name]) for f in schema.one_hot], axis=1)
    features |= {f.name: tf.ragged.constant(bags[f.name], dtype=tf.int64) for f in schema.multi_hot}
    return features, dense, list(bags.values())


def scores(model, features):
    return model(features).numpy()


def check(tmp_path, state, schema, interaction="dot", sizes=(1, 7), features=None, **arguments):
    np.savez(tmp_path / "dlrm.npz", **state)
    bottom, top = ([len(v) for k, v in state.items() if re.match(rf"{m}.*bias", k)] for m in ("bot_l", "top_l"))
    form = {"dot": {}, "itself": {"self_interaction": True}, "cat": {"interaction": "cat"}}[interaction]
    model = td.DLRM(schema, bottom, top, **form, **arguments)
    td.restore_facebook_dlrm(model, tmp_path / "dlrm.npz", features)
    for size in sizes:
        ours, dense, bags = batch(schema, size, seed=size)
        expected = probabilities(state, dense, bags, interaction)
        np.testing.assert_allclose(scores(model, ours), expected, rtol=0, atol=1e-5)
    assert np.std(expected) > 1e-3
    return model


@pytest.mark.parametrize("interaction", ["dot", "itself", "cat"])
def test_scores_of_26_features_in_another_order(tmp_path, interaction):
    rows = [3 + 7 * i % 40 for i in range(26)]
    order = np.random.default_rng(1).permutation(26)
    state = state_dict(rows, 8, (16, 8), (24, 12, 1), interaction)
    schema = schema_of([Table(f"f{i}", 8, n) for i, n in enumerate(rows)], order)
    check(tmp_path, state, schema, interaction, features=[f"f{i}" for i in range(26)])


def test_tables_of_every_kind(tmp_path):
    """Several values, learned weights of rows, quotients and remainders, projections; and names of several devices."""
    state = state_dict([9, 11, 10, 8, 6], 4, (7, 4), (1,), "dot")
    state["v_W_l.0"], state["v_W_l.3"] = numbers(5, 9), numbers(6, 8)
    del state["emb_l.2.weight"]
    state |= {"emb_l.2.weight_q": numbers(1, 4, 4), "emb_l.2.weight_r": numbers(2, 3, 4)}
    state["emb_l.3.embs.weight"], state["emb_l.3.proj.weight"] = state.pop("emb_l.3.weight")[:, :2], numbers(3, 4, 2)
    state["emb_l.4.embs.weight"] = state.pop("emb_l.4.weight")
    tables = (
        Table("f0", 4, 9, combiner="sum"),
        Table("f1", 4, 11),
        Table("f2", 4, 10, remainders=3),
        Table("f3", 2, 8, combiner="sum"),
        Table("f4", 4, 6),
    )
    schema = schema_of(tables, multi_valued=("f0", "f3"))
    model = check(tmp_path, state, schema, seed=3)
    before = model.get_weights()
    named = {re.sub(r"^(bot_l|top_l)", r"\1.module", key): value for key, value in state.items()}
    np.savez(tmp_path / "several.npz", **named)
    again = td.DLRM(schema, (7, 4), (1,))
    td.restore_facebook_dlrm(again, str(tmp_path / "several.npz"))
    for a, b in zip(again.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sharded_tables(tmp_path):
    with td.make_strategy("mirrored", 2).scope():
        state = state_dict([9, 12], 4, (4,), (3, 1), "dot")
        schema = schema_of([Table("f0", 4, 9), Table("f1", 4, 12)])
        np.savez(tmp_path / "dlrm.npz", **state)
        model = td.DLRM(schema, (4,), (3, 1), replicate_below=0)
    td.restore_facebook_dlrm(model, tmp_path / "dlrm.npz")
    for i in range(2):
        np.testing.assert_array_equal(model.embeddings.tables[f"f{i}"].numpy(), state[f"emb_l.{i}.weight"])
    np.testing.assert_array_equal(model.top_mlp.dense_layers[1].bias.numpy(), state["top_l.2.bias"])


def test_the_layers_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    state = state_dict([9, 12, 5], 4, (6, 4), (8, 1), "dot")
    schema = schema_of([Table(f"f{i}", 4, n, combiner="sum") for i, n in enumerate([9, 12, 5])], multi_valued=("f1",))
    check(tmp_path, state, schema)  # so that the formulas above are those of PyTorch, too
    features, dense, bags = batch(schema, 7)

    def sequential(name, last):
        layers = []
        for key in (k for k in state if k.startswith(name) and k.endswith("weight")):
            layers += [torch.nn.Linear(*state[key].shape[::-1]), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1], last)

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.emb_l = torch.nn.ModuleList(torch.nn.EmbeddingBag(n, 4, mode="sum") for n in (9, 12, 5))
            self.bot_l, self.top_l = sequential("bot_l", torch.nn.ReLU()), sequential("top_l", torch.nn.Sigmoid())

        def forward(self, x, bags):
            vectors = [self.bot_l(x)]
            for table, examples in zip(self.emb_l, bags, strict=True):
                offsets = np.cumsum([0, *(len(e) for e in examples)])[:-1]
                vectors.append(table(torch.tensor(np.concatenate(examples)), torch.tensor(offsets)))
            stacked = torch.stack(vectors, 1)
            rows, columns = torch.tril_indices(4, 4, -1)
            products = torch.bmm(stacked, stacked.transpose(1, 2))[:, rows, columns]
            return self.top_l(torch.cat([vectors[0], products], 1))[:, 0]

    reference = Reference()
    reference.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    np.savez(tmp_path / "torch.npz", **{key: value.numpy() for key, value in reference.state_dict().items()})
    model = td.DLRM(schema, (6, 4), (8, 1))
    td.restore_facebook_dlrm(model, tmp_path / "torch.npz")
    expected = reference(torch.tensor(dense), bags).detach().numpy()
    np.testing.assert_allclose(scores(model, features), expected, rtol=0, atol=1e-5)


def test_safetensors(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors.numpy")
    state = state_dict([9, 12], 4, (4,), (3, 1), "dot")
    path = tmp_path / "dlrm.safetensors"
    safetensors.save_file({key: value.astype(np.float16) for key, value in state.items()}, path)
    model = td.DLRM(schema_of([Table("f0", 4, 9), Table("f1", 4, 12)]), (4,), (3, 1))
    td.restore_facebook_dlrm(model, path)
    np.testing.assert_array_equal(
        model.embeddings.tables["f1"].numpy(), state["emb_l.1.weight"].astype(np.float16).astype(np.float32)
    )
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"dlrm\.safetensors: no safetensors file, or damaged"):
        td.restore_facebook_dlrm(model, path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install safetensors, or give a \.npz file"):
        td.restore_facebook_dlrm(model, path)


STATE = state_dict([9, 12], 4, (6, 4), (3, 1), "dot")
SCHEMA = schema_of([Table("f0", 4, 9), Table("f1", 4, 12)])
IS_OF = r"it is of td\.DLRM\(schema, bottom_mlp=\(6, 4\), top_mlp=\(3, 1\)\) with 5 dense and 2 categorical features"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bottom_mlp": (5, 4)}, rf"bot_l\.0\.weight has shape \(6, 5\), and the model needs \(5, 5\); {IS_OF}"),
        ({"bottom_mlp": (4,)}, rf"has bot_l\.2\.weight, bot_l\.2\.bias, for which the model has no place; {IS_OF}"),
        ({"top_mlp": (3, 2, 1)}, rf"has no top_l\.4\.weight, top_l\.4\.bias; {IS_OF}"),
        ({"self_interaction": True}, rf"top_l\.0\.weight has shape \(3, 7\), and the model needs \(3, 10\); {IS_OF}"),
        (
            {"schema": schema_of([Table("f0", 4, 8), Table("f1", 4, 12)])},
            r"emb_l\.0\.weight has shape \(9, 4\).* needs \(8, 4\); emb_l\.0 needs a Table with dim=4 and voc.*_size=9",
        ),
        ({"schema": schema_of([Table(f"f{i}", 4, 9) for i in range(3)])}, r"has no emb_l\.2\.weight; it is of"),
        ({"batch_norm": True}, "no batch normalization"),
        ({"linear": True}, "leave out batch_norm, linear and numbers"),
        ({"numbers": "autodis"}, "a bottom MLP and no batch normalization"),
        (
            {"schema": schema_of([Table("f0", 4, 9), Table("f1", 4, 12)], multi_valued=("f1",))},
            r"feature 'f1' has several values.*combiner='mean'.*set combiner='sum'",
        ),
        ({"schema": with_history(SCHEMA)}, "feature 'h' is a history, .* leave out history_of"),
        ({"features": ["f0", "f2"]}, r"features=\['f0', 'f2'\]: name each .* once: \['f0', 'f1'\]"),
    ],
)
def test_refuses_models_that_do_not_fit(tmp_path, change, message):
    np.savez(tmp_path / "dlrm.npz", **STATE)
    arguments = {"schema": SCHEMA, "bottom_mlp": (6, 4), "top_mlp": (3, 1)} | change
    features = arguments.pop("features", None)
    with pytest.raises(ValueError, match=message):
        td.restore_facebook_dlrm(td.DLRM(**arguments), tmp_path / "dlrm.npz", features)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"emb_l.1.weight_q": numbers(0, 6, 4), "emb_l.1.weight_r": numbers(0, 2, 4)}, "with dim=4 and remainders=2"),
        ({"emb_l.1.proj.weight": numbers(0, 4, 2), "emb_l.1.weight": numbers(0, 12, 2)}, "with dim=2 and vocab.*=12"),
        ({"top_l.0.weight": numbers(0, 3, 10)}, r"\(3, 1\), self_interaction=True\)"),
        ({"top_l.0.weight": numbers(0, 3, 12)}, r"\(3, 1\), interaction='cat'\)"),
        ({"top_l.0.weight": np.array([{}])}, r"top_l\.0\.weight is no array of numbers, or damaged"),
        ({"optimizer": numbers(0, 1)}, "has optimizer, for which the model has no place"),
        (None, "has no bot_l.*give the state dict of a model of dlrm_s_pytorch"),
    ],
)
def test_refuses_checkpoints_that_do_not_fit(tmp_path, change, message):
    np.savez(tmp_path / "dlrm.npz", **({"weight": numbers(0, 1)} if change is None else STATE | change))
    with pytest.raises(ValueError, match=message):
        td.restore_facebook_dlrm(td.DLRM(SCHEMA, (6, 4), (3, 1)), tmp_path / "dlrm.npz")


def test_refuses_pickles_and_other_models(tmp_path):
    model = td.DLRM(SCHEMA, (6, 4), (3, 1))
    (tmp_path / "dlrm.pt").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"(?s)dlrm\.pt: neither .* can run any code.*torch\.load\('.*dlrm\.npz'"):
        td.restore_facebook_dlrm(model, tmp_path / "dlrm.pt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        td.restore_facebook_dlrm(model, tmp_path / "dlrm.npz")
    (tmp_path / "dlrm.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"dlrm\.npz: damaged, or not written by numpy\.savez"):
        td.restore_facebook_dlrm(model, tmp_path / "dlrm.npz")
    with pytest.raises(ValueError, match=r"the model is a EmbeddingMLP; .* needs a td\.DLRM"):
        td.restore_facebook_dlrm(td.EmbeddingMLP(SCHEMA), tmp_path / "dlrm.npz")
    shared = schema_of([Table("f0", 4, 9)])
    features = (*shared.categorical, CategoricalFeature("f1", encoding="ids", dtype="int64", table="f0"))
    with pytest.raises(ValueError, match="feature 'f1' shares the rows of table 'f0'"):
        schema = Schema(shared.label, shared.dense, features, shared.tables)
        td.restore_facebook_dlrm(td.DLRM(schema, (6, 4), (3, 1)), tmp_path / "dlrm.npz")
