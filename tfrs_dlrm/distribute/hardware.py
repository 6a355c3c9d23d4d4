"""Chips and their data sheets: memory, speed, links, embedding hardware. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses

_GB, _GIB, _TERA = 10**9, 2**30, 10**12


@dataclasses.dataclass(frozen=True)
class Device:
    """A device as its data sheet describes it.

    Attributes:
      name: for people.
      memory: bytes; None if unknown.
      float32: FLOP/s of float32 matrix products as TensorFlow computes them by default: on TPUs in bfloat16, on A100
        and H100 in TF32.
      bfloat16: FLOP/s of bfloat16 matrix products.
      bandwidth: memory bandwidth in bytes/s.
      link: bytes/s to other devices of the same kind, in each direction.
      link_name: for people.
      source: where the numbers are from.
      most: the largest number of chips in a TPU slice, or of GPUs in a machine; 0 without a limit.
      replicas: copies of the dense weights and of replicated tables on the device.
      embedding_hardware: the hardware that looks up embeddings: `V1`, `SparseCore`, or empty.
      sparse_cores: SparseCores per chip.
      counted_cores: how many the name of a TPU slice counts per chip: 2 in `v4-32`, which has 16 chips.
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
    embedding_hardware: str = ""
    sparse_cores: int = 0
    counted_cores: int = 1


def _tpu(
    version: str,
    most: int,
    memory: int,
    peak: float,
    bandwidth: float,
    ici: float,
    source: str,
    embedding_hardware: str = "",
    **cores: int,
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
        embedding_hardware=embedding_hardware,
        **cores,
    )


_DOCS = "https://docs.cloud.google.com/tpu/docs/"
_V2_PAPER = "Jouppi et al. 2020, A Domain-Specific Supercomputer for Training Deep Neural Networks"
_V4_PAPER = "Jouppi et al. 2023, TPU v4 (arXiv 2304.01433)"
_V2 = f"{_V2_PAPER}: 4 links of 496 Gbit/s"
_V3 = f"{_DOCS}v3; {_V4_PAPER}: 4 links of 70 GB/s"
_V4 = f"{_DOCS}v4; {_V4_PAPER}: 6 links of 50 GB/s"
_V5E = f"{_DOCS}v5e: 400 GB/s in both directions together"
_V5P = f"{_DOCS}v5p: 1200 GB/s in both directions"
_V6E = f"{_DOCS}v6e: 800 GB/s in both directions"
TPUS = {
    "v2": _tpu("v2", 256, 16 * _GIB, 46, 700, 4 * 62, _V2, "V1", counted_cores=2, replicas=2),
    "v3": _tpu("v3", 1024, 32 * _GIB, 123, 900, 4 * 70, _V3, "V1", counted_cores=2, replicas=2),
    "v4": _tpu("v4", 4096, 32 * _GIB, 275, 1200, 6 * 50, _V4, "V1", counted_cores=2),
    "v5e": _tpu("v5e", 256, 16 * _GB, 197, 819, 200, _V5E),
    "v5p": _tpu("v5p", 6144, 95 * _GB, 459, 2765, 600, _V5P, "SparseCore", counted_cores=2, sparse_cores=4),
    "v6e": _tpu("v6e", 256, 32 * _GB, 918, 1638, 400, _V6E, "SparseCore", sparse_cores=2),
}
# A TPU strategy names its embedding hardware, not its chips: one chip that has each kind.
TPU_WITH = {"V1": "v4", "SparseCore": "v5p", "": "v5e"}
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
# Not from a data sheet: a virtual machine with 32 vCPUs of a server CPU with AMX.
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
# Between machines, in bytes/s: assumes a network card of 100 Gbit/s per machine.
NETWORK = 12.5 * _GB
