"""Notes on a plan, and remedies if it does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tfrs_dlrm.config import AUTO
from tfrs_dlrm.distribute.hardware import TPUS
from tfrs_dlrm.distribute.placement import VALUES, Topology, size_text
from tfrs_dlrm.tools.planner.memory import table_name
from tfrs_dlrm.tools.planner.plans import Plan, Remedy, compute
from tfrs_dlrm.tools.planner.topologies import device_of, topology_text

# Notes mention larger copies on every worker, and a larger imbalance of lookups.
_LARGE = 10**9
_UNEVEN = 1.5
# The most devices to try by doubling, if the hardware has no limit.
_MOST_DEVICES = 1024
_SERVER_MEMORY = 512 * 10**9


def notes(plan: Plan) -> tuple[str, ...]:
    """Returns what to know about a plan, as sentences."""
    return tuple(_notes(plan))


def _notes(plan: Plan) -> Iterator[str]:
    topology, config = plan.topology, plan.config
    copied = sum(t.bytes + t.slots for t in plan.tables if t.placed.kind == "replicated")
    if plan.usable is None:
        yield "The memory of the devices is unknown, so the plan cannot say whether the run fits."
    if topology.strategy == "multi_worker" and copied > _LARGE and topology.devices > 1:
        yield (
            f"Every worker holds all {size_text(copied)} of tables and slots; parameter_server shares them out among"
            " servers."
        )
    if topology.strategy == "tpu" and not TPUS[topology.chip].embedding_hardware:
        yield (
            f"{topology.chip} has no embedding hardware: every chip holds all {size_text(copied)} of tables and slots,"
            " and their gradients, as large as the tables, are summed over all chips. v5p and v6e share tables out."
        )
    embedding = [t for t in plan.tables if t.placed.kind == "tpu_embedding"]
    names, schema = {t.placed.name for t in embedding}, config.model.schema(plan.schema)
    adagrad = sum(t.optimizer == "rowwise_adagrad" for t in embedding)
    if adagrad:
        yield (
            f"Embedding hardware has no row-wise Adagrad: the plan takes adagrad for {adagrad} tables, as a run must,"
            " by --config.optimizer.embedding=auto."
        )
    if config.optimizer.embedding == AUTO and embedding:
        yield "Embedding hardware has no row-wise Adagrad, so optimizer.embedding=auto is adagrad here."
    homes = {f.name: schema.table_of(f).stored_in or f.table for f in schema.categorical if not f.whole_rows}
    pooled = [feature for feature, home in homes.items() if home in names]
    if pooled and plan.optimizer.embedding_l2:
        yield (
            f"Embedding hardware pools the rows of features {', '.join(pooled)}, so it has no l2 for them, and the run"
            " needs --config.optimizer.embedding_l2=0."
        )
    if any(schema.table(table_name(t.placed.name)).dtype == "bfloat16" for t in embedding):
        yield "Tables of bfloat16 are float32 in TPU embedding memory."
    if plan.host_memory:
        yield f"Each host keeps a copy of its chips' tables and slots: {size_text(plan.host_memory)} of its memory."
    if plan.lookups_imbalance > _UNEVEN:
        yield (
            f"The busiest of the {topology.devices} devices has {plan.lookups_imbalance:.2f} times the mean of the"
            " lookups: it holds the frequent rows of a large table."
        )
    if plan.at_most:
        yield f"max_size is taken for the size of tables {', '.join(plan.at_most)}, which is not known yet."
    multi = [f.name for f in plan.schema.categorical if f.multi_valued and f.sequence_length is None]
    if multi:
        yield f"Features {', '.join(multi)} are taken to have {VALUES} values in each example."
    if topology.strategy == "parameter_server":
        yield "Each worker takes steps of a whole batch by itself; the rates add up while the servers keep up."
    elif config.train.batch_size % (topology.devices * plan.device.replicas):
        replicas = topology.devices * plan.device.replicas
        yield f"batch_size={config.train.batch_size} does not divide evenly among {replicas} replicas."


def remedies(plan: Plan) -> tuple[Remedy, ...]:
    """Returns single changes that make the fullest device need less; empty if the plan fits."""
    if plan.fits is not False:
        return ()
    found = [_more_devices(plan, plan.topology), *_smaller(plan), _other_devices(plan)]
    return tuple(r for r in found if r is not None and r.need < plan.need)


def _smaller(plan: Plan) -> Iterator[Remedy]:
    model, optimizer = plan.config.model, plan.config.optimizer
    on_tpu = any(t.placed.kind == "tpu_embedding" for t in plan.tables)
    if not on_tpu and any(t.dtype != "bfloat16" for t in plan.schema.tables if t.parts):
        tables = (dataclasses.replace(t, dtype="bfloat16") if t.parts else t for t in plan.schema.tables)
        schema = dataclasses.replace(plan.schema, tables=tuple(tables))
        yield _remedy('tables of "dtype": "bfloat16"', compute(schema, plan.config, plan.topology))
    if not on_tpu and plan.optimizer.embedding not in ("sgd", "rowwise_adagrad"):
        rowwise = dataclasses.replace(optimizer, embedding="rowwise_adagrad", embedding_l1=0.0)
        config = dataclasses.replace(plan.config, optimizer=rowwise)
        yield _remedy("optimizer.embedding=rowwise_adagrad", compute(plan.schema, config, plan.topology))
    if any(t.stored_in for t in plan.schema.tables):  # their dimensions depend on those of the storing tables
        return
    if model.embedding_dim > 1:
        half = model.embedding_dim // 2
        config = dataclasses.replace(plan.config, model=model.with_embedding_dim(half))
        yield _remedy(f"model.embedding_dim={half}", compute(plan.schema, config, plan.topology))
    power_of_2 = model.embedding_dim and not model.embedding_dim & (model.embedding_dim - 1)
    if power_of_2 and not model.mixed_dim_temperature and not model.one_dimension:
        mixed = dataclasses.replace(model, mixed_dim_temperature=0.3)
        config = dataclasses.replace(plan.config, model=mixed)
        yield _remedy("model.mixed_dim_temperature=0.3", compute(plan.schema, config, plan.topology))


def _more_devices(plan: Plan, topology: Topology) -> Remedy | None:
    """Returns the first doubling of the devices that fits."""
    most = device_of(topology).most or _MOST_DEVICES
    while topology.strategy != "one_device" and 2 * topology.devices <= most:
        topology = dataclasses.replace(topology, devices=2 * topology.devices)
        larger = compute(plan.schema, plan.config, topology)
        if larger.fits:
            return _remedy(f"--strategy={topology.strategy} --topology={topology_text(topology)}", larger)
    return None


def _other_devices(plan: Plan) -> Remedy | None:
    """Returns the smallest fitting cluster of the kind of device with the most memory."""
    if plan.topology.strategy == "parameter_server" or plan.topology.chip == "v5p":
        return None
    if plan.topology.strategy == "tpu":
        return _more_devices(plan, Topology("tpu", 1, TPUS["v5p"].memory, "v5p"))
    return _more_devices(plan, Topology("parameter_server", 1, _SERVER_MEMORY))


def _remedy(change: str, plan: Plan) -> Remedy:
    return Remedy(change, plan.need, bool(plan.fits))
