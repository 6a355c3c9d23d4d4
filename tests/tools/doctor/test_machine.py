import os

import pytest

from tfrs_dlrm.tools.doctor.machine import examine_machine


@pytest.fixture
def root(tmp_path):
    files = {
        "proc/meminfo": "MemTotal:       32000 kB\nMemAvailable:    16000 kB\n",
        "dev/accel/accel0": "",  # another maker's
        "dev/vfio/vfio": "",  # there without any device
        "dev/nvidiactl": "",
        "dev/nvidia0": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_finds_devices_and_memory(root, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "some-tpu")
    machine = examine_machine(str(root))
    assert machine.tpus == () and machine.gpus == (str(root / "dev/nvidia0"),)
    assert machine.memory == 16000 * 1024
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.environment["TPU_NAME"] == "some-tpu" and "PATH" not in machine.environment


@pytest.mark.parametrize("name", ["dev/accel3", "dev/vfio/0"])
def test_finds_tpus_of_either_driver(root, name, monkeypatch):
    (root / name).touch()
    assert examine_machine(str(root)).tpus == (str(root / name),)
    assert examine_machine(str(root)).locked_tpus == ()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may do anything
    assert examine_machine(str(root)).locked_tpus == (str(root / name),)


def test_memory_of_a_container_is_what_its_limit_leaves(root):
    cgroup = root / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.stat").write_text("anon 1000\nfile 300\n")
    (cgroup / "memory.max").write_text("max\n")
    assert examine_machine(str(root)).memory == 16000 * 1024
    (cgroup / "memory.max").write_text("5000\n")
    assert examine_machine(str(root)).memory == 4000


def test_knows_no_memory_where_there_is_no_such_file(tmp_path):
    assert examine_machine(str(tmp_path)).memory is None
