"""Splits the features of a model into those of a context, which all candidates share, and those of a candidate."""

from __future__ import annotations

from collections.abc import Collection

from tfrs_dlrm.schema import Schema


def feature_names(schema: Schema) -> tuple[str, ...]:
    """Returns the names of all features, the dense ones first."""
    return (*(f.name for f in schema.dense), *(f.name for f in schema.categorical))


def split_by_context(schema: Schema, context: Collection[str]) -> tuple[Schema | None, Schema | None, frozenset[str]]:
    """Returns the schemas of the context and of a candidate, and the raw inputs of the context.

    Features that share an input belong together: all of them are of the context if one is. Features that are
    `training_only`, which have one value in all requests, are of the context, and so are parallel histories if one of
    them is. A cross is of the context if all its members are, and otherwise of the candidates.

    Args:
      schema: the schema of the model.
      context: names of features, or of inputs, which stand for the features that read them. Empty: there is no context,
        and both schemas are None.

    Raises:
      ValueError: a name is unknown, or no feature is left for the context or for the candidates.
    """
    if not context:
        return None, None, frozenset()
    names, inputs = feature_names(schema), schema.inputs
    by_input = {given.name: given.features for given in inputs if not given.weights_of}
    crosses = {f.name: f.cross for f in schema.categorical if f.cross}
    known = {*names, *by_input, *(f.name for f in schema.members)}
    chosen = {name for given in context for name in (given, *by_input.get(given, ()))}
    events = {f.name: f.parallel_to or f.name for f in schema.histories}
    parallel = {events[name] for name in chosen & events.keys()}
    chosen |= {name for name, main in events.items() if main in parallel}
    shared_inputs = frozenset(given.name for given in inputs if given.training_only or chosen & set(given.features))
    read = {name: {i.name for i in schema.inputs_of(name)} for name in names}
    shared = [name for name in names if read[name] <= shared_inputs]
    individual = [name for name in names if name not in shared]
    unknown = sorted(set(context) - known)
    mixed = [name for name in context if name in crosses and name in individual]
    asked = {given.name for given in inputs if not given.training_only}
    lacking = [part for part in (shared, individual) if not any(read[name] & asked for name in part)]
    problem = ""
    if unknown:
        problem = f"no feature is called {', '.join(unknown)}"
    elif mixed:
        problem = (
            f"{mixed[0]} crosses features of the candidates; name all of {', '.join(crosses[mixed[0]])}, or not it"
        )
    elif lacking:
        problem = f"no feature is left for the {'context' if shared in lacking else 'candidates'}"
    if problem:
        raise ValueError(f"context={list(context)}: {problem}; the features are {', '.join(names)}")
    return schema.select(shared), schema.select(individual), shared_inputs
