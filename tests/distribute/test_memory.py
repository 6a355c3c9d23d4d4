import psutil

from tfrs_dlrm.distribute.memory import available_memory, memory_of_host

HOST = "/job:localhost/replica:0/task:0/device:CPU:0"
MACHINE = "MemTotal: 32000 kB\nMemAvailable: 16000 kB\n"


def read(**files):
    """Of files by name, wherever they are."""
    return lambda path: files.get(path.rsplit("/", 1)[1].replace(".", "_"), "")


def test_of_this_machine():
    """As psutil sees it, but for what others take meanwhile, and for a container's limit."""
    assert 0 < memory_of_host(HOST) < 1.5 * psutil.virtual_memory().available
    assert 0.7 < available_memory() / memory_of_host(HOST) < 1.5


def test_of_a_container():
    """Its limit without what its programs hold; files in the cache give way."""
    used = "anon 400\nfile 5000\nkernel 20\nshmem 3\nfile_mapped 7\n"
    assert available_memory(read(meminfo=MACHINE, memory_stat=used, memory_max="1000\n")) == 1000 - 400 - 20 - 3
    assert available_memory(read(meminfo=MACHINE, memory_stat=used, memory_max="100\n")) == 0
    assert available_memory(read(meminfo=MACHINE, memory_stat=used, memory_max="max\n")) == 16000 * 1024
    assert available_memory(read(meminfo=MACHINE)) == 16000 * 1024


def test_where_nothing_says_so():
    assert available_memory(read()) is None
