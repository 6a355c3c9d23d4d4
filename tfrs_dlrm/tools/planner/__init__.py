r"""Predicts the memory, traffic and time of a run on any devices, without them and without TensorFlow.

    plan = plan_run(config, "tpu", "v4-32")
    print("\n".join(lines(plan)))
    plan.save("plan.json")

`tfrs_dlrm.distribute.placement` decides where the tables go, for plans and for real runs. docs/guides/planner.md
describes the cost model.
"""

from __future__ import annotations

import dataclasses
import os

from tfrs_dlrm.config import RunConfig, left_to_data, with_defaults
from tfrs_dlrm.config.recipes import find_schema
from tfrs_dlrm.distribute.placement import Topology
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores.files import exists
from tfrs_dlrm.tools.planner.advice import notes, remedies
from tfrs_dlrm.tools.planner.plans import Plan, compute
from tfrs_dlrm.tools.planner.text import lines
from tfrs_dlrm.tools.planner.topologies import parse_topology

__all__ = ["Plan", "lines", "parse_topology", "plan", "plan_run"]


def plan(schema: Schema, config: RunConfig, topology: Topology) -> Plan:
    """Plans a run.

    Args:
      schema: of the data; if the size of a vocabulary is unknown, `max_size` replaces it.
      config: model, optimizers, batch, and whether tables have room for new values of a stream; the data section is
        ignored.
      topology: the devices.

    Raises:
      ValueError: the configuration is invalid, or the size of a table is unknown.
    """
    computed = compute(schema, config, topology)
    return dataclasses.replace(computed, notes=notes(computed), remedies=remedies(computed))


def plan_run(config: RunConfig, strategy: str, topology: str) -> Plan:
    """Plans a run from its recipe and its flags.

    Args:
      config: the run; its schema is that of the prepared data in `data.path`, or else `data.schema`.
      strategy: see `tfrs_dlrm.distribute.placement.STRATEGIES`.
      topology: see `parse_topology`.

    Raises:
      ValueError: the configuration or the topology is invalid, or the size of a table is unknown.
      FileNotFoundError: no schema was found.
    """
    devices = parse_topology(strategy, topology)
    path = _schema_path(config)
    if not path:
        raise FileNotFoundError(
            f"config.data.path={config.data.path!r}: no prepared data there, and config.data.schema names no schema;"
            " one of the two is needed to know the tables"
        )
    if left_to_data(config):
        config = _fitted(config)
    return plan(Schema.load(path), config, devices)


def _fitted(config: RunConfig) -> RunConfig:
    """The values that the data choose; the defaults if they are not prepared yet."""
    from tfrs_dlrm.data.preparing.manifest import MANIFEST_FILE  # these take seconds to load
    from tfrs_dlrm.training.fitted import fitted_to_data

    if not exists(os.path.join(config.data.path, MANIFEST_FILE)):
        return with_defaults(config)
    return fitted_to_data(config, config.data.path)[0]


def _schema_path(config: RunConfig) -> str:
    """Returns the path of the schema; the schema of prepared data comes first, since it has the sizes of tables."""
    prepared = os.path.join(config.data.path, SCHEMA_FILE)
    return prepared if config.data.path and exists(prepared) else find_schema(config.data.schema)
