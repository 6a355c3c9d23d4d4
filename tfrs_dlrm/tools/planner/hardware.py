"""The devices that plans are made for, and what their makers say of them."""

from __future__ import annotations

import dataclasses

from tfrs_dlrm.distribute.placement import Topology

_GB, _GIB, _TERA = 10**9, 2**30, 10**12


@dataclasses.dataclass(frozen=True)
class Device:
    """One device, by its data sheet.

    Attributes:
      name: for people.
      memory: bytes; None where there is no telling.
      float32: FLOP/s of matrix products of float32 as TensorFlow computes them by default: on TPUs in bfloat16, on A100
        and H100 in TF32.
      bfloat16: likewise, of bfloat16.
      bandwidth: of its memory, bytes/s.
      link: bytes/s that it can send to its like, and receive at the same time.
      link_name: what the link is.
      replicas: how many copies of the dense weights and of replicated tables it holds.
      sparse_cores: of a TPU with SparseCores.
      source: where the numbers are from.
      most: how many can be had in one slice of a TPU pod, or in one machine; 0 where there is no limit to speak of.
    """

    name: str
    memory: int | None
    float32: float
    bfloat16: float
    bandwidth: float
    link: float
    link_name: str
    source: str
    most: int = 0
    replicas: int = 1
    sparse_cores: int = 0


def _tpu(
    version: str, most: int, memory: int, peak: float, bandwidth: float, ici: float, source: str, **more: int
) -> Device:
    return Device(
        f"TPU {version}",
        memory,
        float32=peak * _TERA,
        bfloat16=peak * _TERA,
        bandwidth=bandwidth * _GB,
        link=ici * _GB,
        link_name="ICI",
        source=source,
        most=most,
        **more,
    )


_DOCS = "https://docs.cloud.google.com/tpu/docs/"
_V2_PAPER = "Jouppi et al. 2020, A Domain-Specific Supercomputer for Training Deep Neural Networks"
_V4_PAPER = "Jouppi et al. 2023, TPU v4 (arXiv 2304.01433)"
TPUS = {
    "v2": _tpu("v2", 256, 16 * _GIB, 46, 700, 4 * 62, f"{_V2_PAPER}: 4 links of 496 Gbit/s", replicas=2),
    "v3": _tpu("v3", 1024, 32 * _GIB, 123, 900, 4 * 70, f"{_DOCS}v3; {_V4_PAPER}: 4 links of 70 GB/s", replicas=2),
    "v4": _tpu("v4", 4096, 32 * _GIB, 275, 1200, 6 * 50, f"{_DOCS}v4; {_V4_PAPER}: 6 links of 50 GB/s"),
    "v5e": _tpu("v5e", 256, 16 * _GB, 197, 819, 200, f"{_DOCS}v5e: 400 GB/s in both directions together"),
    "v5p": _tpu("v5p", 6144, 95 * _GB, 459, 2765, 600, f"{_DOCS}v5p: 1200 GB/s in both directions", sparse_cores=4),
    "v6e": _tpu("v6e", 256, 32 * _GB, 918, 1638, 400, f"{_DOCS}v6e: 800 GB/s in both directions", sparse_cores=2),
}
GPUS = {
    "A100": Device(
        "NVIDIA A100 80 GB SXM",
        80 * _GB,
        float32=156 * _TERA,
        bfloat16=312 * _TERA,
        bandwidth=2039 * _GB,
        link=300 * _GB,
        link_name="NVLink",
        source="NVIDIA A100 datasheet: 600 GB/s in both directions together; float32 in TF32",
        most=16,
    ),
    "H100": Device(
        "NVIDIA H100 80 GB SXM",
        80 * _GB,
        float32=495 * _TERA,
        bfloat16=989 * _TERA,
        bandwidth=3350 * _GB,
        link=450 * _GB,
        link_name="NVLink",
        source="NVIDIA H100 datasheet, without sparsity: 900 GB/s in both directions together; float32 in TF32",
        most=16,
    ),
}
# No data sheet: what to expect of a virtual machine with 32 vCPUs of a server CPU with AMX.
CPU = Device(
    "machine with 32 vCPUs",
    None,
    float32=2 * _TERA,
    bfloat16=8 * _TERA,
    bandwidth=150 * _GB,
    link=4 * _GB,
    link_name="network",
    source="assumed, with a network of 32 Gbit/s",
)
# Between machines, where data sheets say nothing: a network card of 100 Gbit/s for each.
_NETWORK = 12.5 * _GB


def device_of(topology: Topology) -> Device:
    """What the tables of a topology are on; what it does not say is assumed."""
    if topology.strategy == "tpu":
        return TPUS[topology.chip]
    if topology.strategy == "parameter_server" or topology.chip == "CPU":
        memory_copies = topology.strategy in ("one_device", "mirrored")
        return dataclasses.replace(CPU, link=CPU.bandwidth, link_name="memory copies") if memory_copies else CPU
    device = GPUS[topology.chip or "A100"]
    if topology.memory not in (None, device.memory):
        device = dataclasses.replace(device, name=f"GPU as fast as {device.name}")
    if topology.strategy == "multi_worker":
        device = dataclasses.replace(device, link=_NETWORK, link_name="network", most=0)
    return device
