"""The formula of every model in plain NumPy, float64, from the weights of a model of the package."""

import numpy as np


def rows_of_tables(model, features):
    """[B, dim] of each feature, float64."""
    tables = {name: v.numpy().astype(np.float64) for name, v in model.embeddings.tables.items()}
    ids = features["ids"].numpy()
    bags = []
    for tags, weights in zip(features["tags"].to_list(), features["tags_weights"].to_list(), strict=True):
        weighted = sum((w * tables["tags"][t] for t, w in zip(tags, weights, strict=True)), np.zeros(1))
        bags.append(weighted / np.sqrt(sum(w * w for w in weights) or 1) + np.zeros(tables["tags"].shape[1]))
    return [tables["user"][ids[:, 0]], np.stack(bags), tables["item"][ids[:, 1]], tables["item"][ids[:, 2]]]


def numpy_mlp(mlp, x, final_relu=False):
    for i, layer in enumerate(mlp.dense_layers):
        x = x @ layer.kernel.numpy() + layer.bias.numpy()
        last = i == mlp.hidden_layers
        if mlp.batch_norm and not last:
            norm = mlp.batch_norms[i]
            scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + 1e-3)
            x = (x - norm.moving_mean.numpy()) * scale + norm.beta.numpy()
        x = np.maximum(x, 0) if final_relu or not last else x
    return x


def numpy_auto_dis(layer, x):
    """The vectors [B, D] of each number: a softmax over buckets."""
    slopes, mixing, vectors = (v.numpy() for v in (layer.slopes, layer.mixing, layer.vectors))
    for j in range(x.shape[1]):
        h = x[:, [j]] * slopes[j]
        h = np.where(h > 0, h, 0.2 * h)
        p = np.exp(h @ mixing[j] + 0.1 * h)
        yield p / p.sum(axis=1, keepdims=True) @ vectors[j]


def numpy_pairs(vectors):
    return sum((vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i))


def numpy_cross(network, x):
    x0 = x
    for i in range(network.layers):
        w, b = network.outer[i].kernel.numpy(), network.outer[i].bias.numpy()
        x = x0 * (x @ (network.inner[i].kernel.numpy() @ w if network.rank else w) + b) + x
    return x


def in_numpy(name, model, features):
    rows = rows_of_tables(model, features)
    x = features["dense"].numpy().astype(np.float64) if "dense" in features else np.zeros([len(rows[0]), 0])
    if model.vector_projections is not None:
        kernel, bias = (v.numpy() for v in model.vector_projections.projections["title"].variables)
        rows.append(x[:, 1:4] @ kernel + bias)
        x = x[:, [0, *range(4, x.shape[1])]]
    side_by_side = np.concatenate([*rows, x], axis=1)
    if name == "logistic_regression":
        dense = x @ model.dense_weights.vectors.numpy() if x.size else 0
        return model.bias.bias.numpy() + (sum(rows) + dense)[:, 0]
    if name == "matrix_factorization":
        user, item = rows[0], rows[2]
        return model.bias.bias.numpy() + user[:, 4] + item[:, 4] + (user[:, :4] * item[:, :4]).sum(1)
    if name in ("factorization_machine", "deepfm"):
        if x.size:
            rows += [x[:, [i]] * v for i, v in enumerate(model.dense_vectors.vectors.numpy())]
        vectors = [r[:, :-1] for r in rows]
        logits = sum(r[:, -1] for r in rows) + numpy_pairs(vectors)
        if name == "factorization_machine":
            return logits + model.bias.bias.numpy()
        return logits + numpy_mlp(model.top_mlp, np.concatenate(vectors, axis=1))[:, 0]
    if name == "wide_and_deep":
        wide = sum(r[:, -1] for r in rows) + (x @ model.dense_weights.vectors.numpy()[:, 0] if x.size else 0)
        deep = numpy_mlp(model.top_mlp, np.concatenate([*(r[:, :-1] for r in rows), x], axis=1))
        return wide + deep[:, 0]
    if name == "mlp":
        return numpy_mlp(model.top_mlp, side_by_side)[:, 0]
    if name in LATER:
        return LATER[name](model, rows, x)
    if name == "dcn":
        if model.dense_mlp is not None:
            side_by_side = np.concatenate([*rows, numpy_mlp(model.dense_mlp, x, final_relu=True)], axis=1)
        crossed = numpy_cross(model.cross_network, side_by_side)
        if model.cross_structure == "stacked":
            return numpy_mlp(model.top_mlp, crossed)[:, 0]
        return (crossed @ model.cross_logit.kernel.numpy() + numpy_mlp(model.top_mlp, side_by_side))[:, 0]
    assert name == "dlrm", f"write the formula of {name}"
    bottom = []
    if x.size:
        soft = model.numbers == "autodis"
        bottom = [*numpy_auto_dis(model.auto_dis, x)] if soft else [numpy_mlp(model.bottom_mlp, x, final_relu=True)]
    if model.interaction is None:
        return numpy_mlp(model.top_mlp, np.concatenate([*bottom, *rows], axis=1))[:, 0]
    vectors = bottom + rows
    linear = np.zeros(len(rows[0]))
    if model.linear:
        linear = np.concatenate(rows, axis=1) @ model.linear_vectors.kernel.numpy()[:, 0]
        linear = linear + (x @ model.linear_numbers.kernel.numpy()[:, 0] if x.size else 0)
    products = [
        (vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i + model.self_interaction)
    ]
    return numpy_mlp(model.top_mlp, np.concatenate([*bottom, np.stack(products, axis=1)], axis=1))[:, 0] + linear


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_gdcn(model, rows, x):
    x0 = crossed = np.concatenate([*rows, x], axis=1)
    for cross, gate in zip(model.cross_network.crosses, model.cross_network.gates, strict=True):
        new = x0 * (crossed @ cross.kernel.numpy() + cross.bias.numpy())
        crossed = new * sigmoid(crossed @ gate.kernel.numpy()) + crossed
    if model.cross_structure == "stacked":
        return numpy_mlp(model.top_mlp, crossed)[:, 0]
    return (crossed @ model.cross_logit.kernel.numpy() + numpy_mlp(model.top_mlp, x0))[:, 0]


def numpy_final_mlp(model, rows, x):
    v, schema = np.concatenate([*rows, x], axis=1), model.schema
    by_name = dict(zip((f.name for f in (*schema.categorical, *schema.projected)), rows, strict=True))
    by_name |= {"price": x[:, :1], "age": x[:, 1:]}
    config, outputs = model.get_config(), []
    for gate, stream, field in zip(model.gates, model.streams, ("first_context", "second_context"), strict=True):
        context = [by_name[name] for name in sorted(config[field], key=("price", "age").__contains__)]
        logits = numpy_mlp(gate.mlp, np.concatenate(context, axis=1)) if context else gate.logits.numpy()
        outputs.append(numpy_mlp(stream, 2 * sigmoid(logits) * v))
    p, q = (np.split(o, model.fusion.heads, axis=1) for o in outputs)
    kernel = model.fusion.kernel.numpy()[..., 0]
    products = sum(np.sum(a @ w * b, axis=1) for a, w, b in zip(p, kernel, q, strict=True))
    return products + numpy_mlp(model.top_mlp, np.concatenate(outputs, axis=1))[:, 0]


def numpy_norm(layer, x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + layer.epsilon) * layer.gain.numpy() + layer.shift.numpy()


def numpy_dense(layer, x):
    return x @ layer.kernel.numpy() + (layer.bias.numpy() if layer.use_bias else 0)


def numpy_vectors(model, rows, x):
    """The vectors [B, n, D] of all features."""
    numbers = model.dense_vectors.vectors.numpy() if x.size else []
    return np.stack([*rows, *(x[:, [i]] * v for i, v in enumerate(numbers))], axis=1)


def numpy_mask_net(model, rows, x):
    vectors = numpy_vectors(model, rows, x)
    instance, embedded = (v.reshape(len(v), -1) for v in (vectors, numpy_norm(model.vector_norm, vectors)))
    outputs, hidden = [], embedded
    for block in model.blocks:
        mask = numpy_dense(block.projection, np.maximum(numpy_dense(block.aggregation, instance), 0))
        hidden = hidden if model.mask_structure == "serial" else embedded
        hidden = np.maximum(numpy_norm(block.norm, numpy_dense(block.hidden, mask * hidden)), 0)
        outputs.append(hidden)
    last = hidden if model.mask_structure == "serial" else np.concatenate(outputs, axis=1)
    return numpy_mlp(model.top_mlp, last)[:, 0]


def numpy_attention(layer, vectors):
    query, key, value = (numpy_dense(part, vectors) for part in (layer.query, layer.key, layer.value))
    heads = []
    for h in range(layer.heads):
        part = slice(h * layer.dim, (h + 1) * layer.dim)
        weights = np.exp(np.einsum("bmd,bkd->bmk", query[..., part], key[..., part]))
        weights /= weights.sum(axis=2, keepdims=True)
        heads.append(np.einsum("bmk,bkd->bmd", weights, value[..., part]))
    return np.maximum(np.concatenate(heads, axis=2) + numpy_dense(layer.residual, vectors), 0)


def numpy_auto_int(model, rows, x):
    vectors = attended = numpy_vectors(model, rows, x)
    for layer in model.attention:
        attended = numpy_attention(layer, attended)
    flat, last = (v.reshape(len(v), -1) for v in (vectors, attended))
    return (numpy_dense(model.attention_logit, last) + numpy_mlp(model.top_mlp, flat))[:, 0]


def numpy_xdeepfm(model, rows, x):
    rows = numpy_vectors(model, rows, x)
    vectors, linear = rows[:, :, :-1], rows[:, :, -1].sum(axis=1)
    layer, sums = vectors, []
    for kernel in model.interaction.kernels:
        by_pair = kernel.numpy().reshape(layer.shape[1], vectors.shape[1], -1)
        layer = np.einsum("bid,bjd,ijh->bhd", layer, vectors, by_pair)
        sums.append(layer.sum(axis=2))
    interactions = numpy_dense(model.interaction_logit, np.concatenate(sums, axis=1))
    return linear + (interactions + numpy_mlp(model.top_mlp, vectors.reshape(len(vectors), -1)))[:, 0]


def numpy_final_net(model, rows, x):
    x = np.concatenate([*rows, x], axis=1)
    first = numpy_factorized(model.top_mlp, x)
    if model.second_block is None:
        return first
    return (first + numpy_factorized(model.second_block, x) + model.top_mlp.dense_layers[-1].bias.numpy()[0]) / 2


def numpy_factorized(mlp, x):
    hidden = mlp.dense_layers[:-1]
    for layer, norm in zip(hidden, mlp.batch_norms if mlp.batch_norm else [None] * len(hidden), strict=True):
        x = numpy_dense(layer.linear, x) * (1 + numpy_dense(layer.factor, x))
        if norm is not None:
            scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + 1e-3)
            x = (x - norm.moving_mean.numpy()) * scale + norm.beta.numpy()
        x = np.maximum(x, 0)
    return numpy_dense(mlp.dense_layers[-1], x)[:, 0]


def numpy_embedding_mlp(model, rows, x):
    return numpy_mlp(model.top_mlp, np.concatenate([*rows, x], axis=1))[:, 0]


def numpy_transformer(layer, events, target):
    """One example of `BehaviorTransformer`: [n, D] of its n events, the latest last, and [D] -> [1 + n, D]."""
    x = np.concatenate([target[None], events[::-1]]) + layer.places.numpy()[: 1 + len(events)]
    for block in layer.blocks_of_layers:
        weights = {w.name.rsplit("/", 2)[-2]: w.numpy() for w in block.weights if w.name.endswith("kernel:0")}
        query, key, value = (x @ weights[name] for name in ("query", "key", "value"))
        dim, heads = -(-x.shape[1] // layer.heads), []
        for h in range(layer.heads):
            q, k, v = (m[:, h * dim : (h + 1) * dim] for m in (query, key, value))
            products = np.exp(q @ k.T / np.sqrt(dim))
            heads.append(products / products.sum(axis=1, keepdims=True) @ v)
        first, second = ({w.name.rsplit("/")[-1]: w.numpy() for w in norm.weights} for norm in block.norms)
        x = numpy_layer_norm(x + np.concatenate(heads, axis=1) @ weights["output"], first)
        x = numpy_layer_norm(x + numpy_mlp(block.mlp, x), second)
    return x


def numpy_layer_norm(x, weights):
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * weights["gain:0"] + weights["shift:0"]


# By name, functions of a model, its vectors, each [B, dim], and its numbers [B, W].
LATER = {
    "gdcn": numpy_gdcn,
    "final_mlp": numpy_final_mlp,
    "mask_net": numpy_mask_net,
    "auto_int": numpy_auto_int,
    "xdeepfm": numpy_xdeepfm,
    "final_net": numpy_final_net,
    # Without histories; tests/models/test_histories.py has them.
    "din": numpy_embedding_mlp,
    "bst": numpy_embedding_mlp,
}
