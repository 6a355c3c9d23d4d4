"""Reads and writes the names of topologies, such as `v4-32`, `8x80GB` or `4x64GB+8`."""

from __future__ import annotations

import dataclasses
import re

from tfrs_dlrm.distribute.hardware import CPU, GPUS, NETWORK, TPUS, Device
from tfrs_dlrm.distribute.placement import STRATEGIES, Topology

_FORMS = {
    "one_device": "80GB (a GPU with that much memory), A100, H100, CPU or CPU-64GB",
    "mirrored": "8x80GB (GPUs and the memory of each), 8xA100, 8xH100, 8xA100-40GB or 4xCPU",
    "multi_worker": "4x80GB (workers with a GPU each, and its memory), 4xA100, 4xH100 or 4xCPU-64GB",
    "parameter_server": "4 (servers), 4x64GB (with the memory of each) or 4x64GB+8 (with 8 workers)",
    "tpu": "v4-32, v2-8, v3-8, v5p-16 (which count TensorCores, two a chip), v5e-16, v5litepod-16 or v6e-8 (chips)",
}
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_topology(strategy: str, text: str) -> Topology:
    """Parses the value of `--topology`, the devices of a strategy.

    Args:
      strategy: one of `STRATEGIES`.
      text: see the module docstring; empty is one CPU under `one_device`.

    Raises:
      ValueError: the text has none of the forms, which the message lists, or no TPU slice is that large.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    topology = _tpu(text) if strategy == "tpu" else _others(strategy, text)
    if topology is None:
        raise ValueError(f"topology {text!r} does not fit strategy {strategy}; give one like {_FORMS[strategy]}")
    return topology


def topology_text(topology: Topology) -> str:
    """Returns the text that `parse_topology` parses as this topology."""
    if topology.strategy == "tpu":
        return f"{topology.chip}-{topology.devices * TPUS[topology.chip].counted_cores}"
    memory = "" if topology.memory is None else f"{topology.memory / 10**9:.12g}GB"
    if topology.chip in GPUS and topology.memory == GPUS[topology.chip].memory:
        memory = ""
    kind = "-".join(part for part in (topology.chip, memory) if part)
    if topology.strategy == "one_device":
        return kind
    workers = f"+{topology.workers}" if topology.workers > 1 else ""
    return f"{topology.devices}{'x' if kind else ''}{kind}{workers}"


def device_of(topology: Topology) -> Device:
    """Returns the device that holds a topology's tables; a GPU without a name counts as an A100."""
    if topology.strategy == "tpu":
        return TPUS[topology.chip]
    if topology.strategy == "parameter_server" or topology.chip == "CPU":
        memory_copies = topology.strategy in ("one_device", "mirrored")
        return dataclasses.replace(CPU, link=CPU.bandwidth, link_name="memory copies") if memory_copies else CPU
    device = GPUS[topology.chip or "A100"]
    if topology.memory not in (None, device.memory):
        device = dataclasses.replace(device, name=f"GPU as fast as {device.name}")
    if topology.strategy == "multi_worker":
        device = dataclasses.replace(device, link=NETWORK, link_name="network", most=0)
    return device


def _tpu(text: str) -> Topology | None:
    match = re.fullmatch(r"(v5litepod|\w+)-(\d+)", text)
    version = match[1].replace("v5litepod", "v5e") if match else ""
    if match is None or version not in TPUS:
        return None
    chips, rest = divmod(int(match[2]), TPUS[version].counted_cores)
    if chips > TPUS[version].most:
        raise ValueError(f"topology {text!r} has {chips} chips; a slice of {version} has {TPUS[version].most} at most")
    return Topology("tpu", chips, TPUS[version].memory, version) if chips and not rest else None


def _others(strategy: str, text: str) -> Topology | None:
    servers = strategy == "parameter_server"
    text, plus, workers = text.partition("+") if servers else (text, "", "")
    count, times, kind = ("1", "x", text or "CPU") if strategy == "one_device" else text.partition("x")
    if bool(times) != bool(kind) or not _positive(count) or (plus and not _positive(workers)):
        return None
    name, dash, size = kind.partition("-") if kind[:1].isalpha() else ("", "", kind)
    memory = _bytes(size)
    if (size and memory is None) or (dash and not size) or (servers and name):
        return None
    if name and name != "CPU" and name not in GPUS:
        return None
    if name in GPUS and memory is None:
        memory = GPUS[name].memory
    return Topology(strategy, int(count), memory, name, int(workers or 1))


def _positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(\w+)", text)
    return round(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else None
