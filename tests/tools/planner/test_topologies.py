"""Topologies by name: every form, and errors that show the forms."""

import pytest

from tfrs_dlrm.distribute.placement import Topology
from tfrs_dlrm.tools.planner.topologies import parse_topology, topology_text

GB, GIB = 10**9, 2**30


@pytest.mark.parametrize(
    "strategy, text, topology",
    [
        ("one_device", "", Topology("one_device", 1, None, "CPU")),
        ("one_device", "CPU-64GiB", Topology("one_device", 1, 64 * GIB, "CPU")),
        ("one_device", "80GB", Topology("one_device", 1, 80 * GB)),
        ("one_device", "H100", Topology("one_device", 1, 80 * GB, "H100")),
        ("mirrored", "8x80GB", Topology("mirrored", 8, 80 * GB)),
        ("mirrored", "8xA100-40GB", Topology("mirrored", 8, 40 * GB, "A100")),
        ("mirrored", "4xCPU", Topology("mirrored", 4, None, "CPU")),
        ("mirrored", "4", Topology("mirrored", 4)),
        ("multi_worker", "4x80GB", Topology("multi_worker", 4, 80 * GB)),
        ("parameter_server", "4", Topology("parameter_server", 4)),
        ("parameter_server", "4+8", Topology("parameter_server", 4, workers=8)),
        ("parameter_server", "4x1.5TB+8", Topology("parameter_server", 4, 1500 * GB, workers=8)),
        # The names of v2 to v4 and v5p count TensorCores, two a chip; the others count chips.
        ("tpu", "v2-8", Topology("tpu", 4, 16 * GIB, "v2")),
        ("tpu", "v3-8", Topology("tpu", 4, 32 * GIB, "v3")),
        ("tpu", "v4-32", Topology("tpu", 16, 32 * GIB, "v4")),
        ("tpu", "v5p-8", Topology("tpu", 4, 95 * GB, "v5p")),
        ("tpu", "v5e-16", Topology("tpu", 16, 16 * GB, "v5e")),
        ("tpu", "v5litepod-16", Topology("tpu", 16, 16 * GB, "v5e")),
        ("tpu", "v6e-8", Topology("tpu", 8, 32 * GB, "v6e")),
    ],
)
def test_forms(strategy, text, topology):
    assert parse_topology(strategy, text) == topology
    assert parse_topology(strategy, topology_text(topology)) == topology


@pytest.mark.parametrize(
    "strategy, text, message",
    [
        ("gpus", "8", "strategy 'gpus' is unknown; choose one of one_device, mirrored"),
        ("one_device", "8x80GB", "topology '8x80GB' does not fit strategy one_device; give one like 80GB"),
        ("one_device", "80", "give one like 80GB"),
        ("mirrored", "", "topology '' does not fit strategy mirrored; give one like 8x80GB"),
        ("mirrored", "80GB", "like 8x80GB"),
        ("mirrored", "0x80GB", "like 8x80GB"),
        ("mirrored", "8x80", "like 8x80GB"),
        ("mirrored", "8x", "like 8x80GB"),
        ("mirrored", "8xV100", "like 8x80GB"),
        ("mirrored", "8xA100-", "like 8x80GB"),
        ("mirrored", "8x80GB+4", "like 8x80GB"),
        ("multi_worker", "four", "like 4x80GB"),
        ("parameter_server", "4xA100", r"like 4 \(servers\), 4x64GB \(with the memory of each\) or 4x64GB\+8"),
        ("parameter_server", "4+", r"4x64GB\+8"),
        ("parameter_server", "4+0", r"4x64GB\+8"),
        ("tpu", "v4", "topology 'v4' does not fit strategy tpu; give one like v4-32, v2-8, v3-8, v5p-16"),
        ("tpu", "v4-33", "which count TensorCores, two a chip"),
        ("tpu", "v7-8", "like v4-32"),
        ("tpu", "v6e-0", "like v4-32"),
        ("tpu", "v6e-512", "topology 'v6e-512' has 512 chips; a slice of v6e has 256 at most"),
    ],
)
def test_mistakes_show_the_forms(strategy, text, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(strategy, text)
