r"""What a run would need and take on devices that need not be there. Nothing here loads TensorFlow.

    plan = plan_run(config, "tpu", "v4-32")
    print("\n".join(lines(plan)))
    plan.save("plan.json")

`tfrs_dlrm.distribute.placement` decides where the tables go, for plans and for real runs. docs/guides/planner.md
describes the cost model.
"""

from __future__ import annotations

import dataclasses
import os

from tfrs_dlrm.config import RunConfig
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
    """The plan of a run.

    Args:
      schema: of vocabularies whose size is not known yet, `max_size` is taken for it.
      config: model, optimizers and batch; where the data are does not matter.
      topology: the devices.

    Raises:
      ValueError: the configuration is not one, or a table has no size yet.
    """
    computed = compute(schema, config, topology)
    return dataclasses.replace(computed, notes=notes(computed), remedies=remedies(computed))


def plan_run(config: RunConfig, strategy: str, topology: str) -> Plan:
    """The plan of a run as its recipe and its flags describe it.

    Args:
      config: the schema is that of the prepared data in `data.path`, or where there are none, `data.schema`.
      strategy: see `tfrs_dlrm.distribute.placement.STRATEGIES`.
      topology: see `parse_topology`.

    Raises:
      ValueError: the configuration or the topology is not one, or a table has no size yet.
      FileNotFoundError: there is no schema.
    """
    devices = parse_topology(strategy, topology)
    path = _schema_path(config)
    if not path:
        raise FileNotFoundError(
            f"config.data.path={config.data.path!r}: no prepared data there, and config.data.schema names no schema;"
            " one of the two is needed to know the tables"
        )
    return plan(Schema.load(path), config, devices)


def _schema_path(config: RunConfig) -> str:
    """Where there is a schema: that of the prepared data knows the sizes of tables."""
    prepared = os.path.join(config.data.path, SCHEMA_FILE)
    return prepared if config.data.path and exists(prepared) else find_schema(config.data.schema)
