"""The cost model of a train step's time: the work divided by the speed of the hardware."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.distribute.hardware import Device
from tfrs_dlrm.distribute.placement import Topology
from tfrs_dlrm.tools.planner.memory import examples_each
from tfrs_dlrm.tools.planner.traffic import Flow

# Assumed shares of the speeds in data sheets: MLPs rarely fill the matrix units, rows are read at random, and
# all-to-all exchanges share links.
COMPUTE_UTILISATION = 0.4
MEMORY_UTILISATION = 0.5
LINK_UTILISATION = 0.5
# Forward, gradients of activations, gradients of weights.
PASSES = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The seconds of a step on the busiest device; under `parameter_server`, of one step of every worker at once.

    Attributes:
      compute: the arithmetic of the dense layers.
      memory: reading and writing device memory.
      link: transfers between devices.
      examples: the number of examples of the step.
    """

    compute: float
    memory: float
    link: float
    examples: int

    @property
    def bottleneck(self) -> Literal["compute", "memory", "link"]:
        """The part that takes longest."""
        times: dict[Literal["compute", "memory", "link"], float] = {
            "compute": self.compute,
            "memory": self.memory,
            "link": self.link,
        }
        return max(times, key=lambda name: times[name])

    @property
    def most_examples_per_second(self) -> float:
        """The speed if the three parts overlap perfectly."""
        return self.examples / max(self.compute, self.memory, self.link)

    @property
    def examples_per_second_in_turn(self) -> float:
        """The speed if the three parts follow one another."""
        return self.examples / (self.compute + self.memory + self.link)


def step_flops(dense: DenseCost, config: RunConfig, topology: Topology) -> float:
    """Returns the FLOP of one step on each computing device or worker."""
    return PASSES * dense.flops * examples_each(config, topology)


def step_time(
    flows: tuple[Flow, ...], dense: DenseCost, config: RunConfig, topology: Topology, device: Device
) -> StepTime:
    """Returns the time of a step by the cost model."""
    peak = device.bfloat16 if config.train.precision == "bfloat16" else device.float32
    return StepTime(
        compute=step_flops(dense, config, topology) / (peak * COMPUTE_UTILISATION),
        memory=busiest(flows, "memory", topology) / (device.bandwidth * MEMORY_UTILISATION),
        link=busiest(flows, "link", topology) / (device.link * LINK_UTILISATION),
        examples=config.train.batch_size * topology.workers,
    )


def busiest(flows: tuple[Flow, ...], where: str, topology: Topology) -> float:
    """Returns the bytes that the busiest device, server or worker moves in one direction."""
    chosen = [f for f in flows if f.where == where]
    if not chosen:
        return 0.0
    devices = range(topology.devices)
    each = max(max(sum(f.sent[d] for f in chosen), sum(f.received[d] for f in chosen)) for d in devices)
    worker = max(sum(f.worker_sent for f in chosen), sum(f.worker_received for f in chosen))
    return max(topology.workers * each, worker)
