import psutil

from tfrs_dlrm.checkpoint import memory

HOST = "/job:localhost/replica:0/task:0/device:CPU:0"


def test_of_a_machine(monkeypatch):
    """As psutil sees it, but for what others take meanwhile."""
    monkeypatch.setattr(memory, "_GROUP", "/nowhere/")
    assert 0.7 < memory.available(HOST) / psutil.virtual_memory().available < 1.5


def test_of_a_container(monkeypatch, tmp_path):
    """Its limit without what its programs hold; files in the cache give way."""
    monkeypatch.setattr(memory, "_GROUP", f"{tmp_path}/")
    machine = memory.available(HOST)
    (tmp_path / "memory.stat").write_text("anon 400\nfile 5000\nkernel 20\nshmem 3\nfile_mapped 7\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.available(HOST) == 1000 - 400 - 20 - 3
    (tmp_path / "memory.max").write_text("100\n")
    assert memory.available(HOST) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert 0.5 * machine < memory.available(HOST) < 2 * machine


def test_where_nothing_says_so(monkeypatch):
    monkeypatch.setattr(memory, "_read", lambda host, path: "")
    assert memory.available(HOST) == 0
