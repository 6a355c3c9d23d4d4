import errno
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tfrs_dlrm.stores import lock as lock_module
from tfrs_dlrm.stores.lock import LOCK_FILE, InUseError, Lock, directory_lock

OWNER = """
import sys
from tfrs_dlrm.stores.lock import directory_lock
lock = directory_lock(sys.argv[1], "trains")
lock.acquire()
print("mine", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_refused_by_name_and_nothing_stays(tmp_path):
    home = tmp_path / "runs" / "out"
    with directory_lock(str(home), "prepares data in it") as first:
        first.acquire()
        first.acquire()  # it has it already
        with pytest.raises(InUseError) as e:
            directory_lock(str(home), "other").acquire()
        assert str(home) in str(e.value)
        assert f"this process on {socket.gethostname()}, which prepares data in it since 2" in str(e.value)
        assert "wait until that one ends, stop it, or choose another place" in str(e.value)
    assert not list(tmp_path.iterdir())  # the lock made the directories, and nobody wrote to them
    home.mkdir(parents=True)
    (home / "data").write_text("x")
    with directory_lock(str(home), "other") as second:
        second.acquire()
    assert os.listdir(home) == ["data"]


@pytest.mark.process
def test_a_lock_dies_with_its_process(tmp_path):
    arguments = [sys.executable, "-c", OWNER, str(tmp_path)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(InUseError, match=rf"process {process.pid} on .*, which trains since"):
            directory_lock(str(tmp_path), "trains").acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == [LOCK_FILE]
    with directory_lock(str(tmp_path), "trains") as lock:
        assert lock.acquire() is False
    assert os.listdir(tmp_path) == []


def test_one_waits_for_an_owner_with_the_same_work(tmp_path):
    first, second = (directory_lock(str(tmp_path / "out"), "prepares", "abc") for _ in range(2))
    first.acquire()
    seen, asked = [], threading.Event()

    def same(owner):
        seen.append(owner.key)
        asked.set()
        return True

    def wait():
        with second:
            seen.append(second.acquire(wait=same))

    thread = threading.Thread(target=wait)
    thread.start()
    assert asked.wait(300)
    first.release()
    thread.join()
    assert seen == ["abc", True]
    assert not (tmp_path / "out").exists()


def test_many_in_turn_are_never_two(tmp_path):
    # Each removes the file of the lock, and the directory if it is empty: no two may have it at the same time.
    home, inside, most = str(tmp_path / "out"), 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(25):
            with directory_lock(home, "works") as lock:
                lock.acquire(wait=lambda owner: True)
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)
    assert not os.path.exists(home) or not os.listdir(home)


def test_shared_locks(tmp_path):
    path = str(tmp_path / "use")
    one, other = (Lock(path, "copy", "reads it", shared=True) for _ in range(2))
    alone = Lock(path, "copy", "removes it")
    one.acquire(), other.acquire()
    assert not alone.is_taken()
    with pytest.raises(InUseError, match="copy: in use by another process"):
        alone.acquire()
    one.release(), other.release()
    alone.acquire()
    assert one.is_taken()
    alone.release()
    assert os.path.exists(path)


def test_without_locks_it_warns_and_works(tmp_path, monkeypatch, caplog):
    def flock(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)
    lock = directory_lock(str(tmp_path / "out"), "trains")
    lock.acquire()
    assert lock.held
    assert "its file system has no locks" in caplog.text
    lock.release()
    assert not lock.held and not (tmp_path / "out").exists()


def test_a_lock_that_was_given_back_is_free_although_a_child_has_its_file_open(tmp_path):
    first, second = (Lock(str(tmp_path / "use"), "copy", "reads it") for _ in range(2))
    first.acquire()
    child = subprocess.Popen(["sleep", "600"], pass_fds=[first._file.fileno()])
    try:
        first.release()
        assert second.acquire() is False
    finally:
        second.release()
        child.kill()
        child.wait()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / LOCK_FILE).symlink_to("gone/lock")
    for place in ("file/out", "file", "link", "link/out", "home"):
        with pytest.raises(OSError, match=rf"{place}: cannot be written: .*; choose another place"):
            directory_lock(str(tmp_path / place), "trains").acquire()
