"""One owner at a time: locks of files and directories, which end with the process that holds them.

A lock is `flock` on a file, so the system releases it however its process ends, and a file that a killed process left
blocks nobody. File systems without locks are written to without them, after a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import io
import json
import os
import socket
import time
from collections.abc import Callable
from types import TracebackType

from absl import logging

from tfrs_dlrm.stores.files import unwritable

# In a directory that one process at a time may write. It is no content of the directory: nothing copies or counts it.
LOCK_FILE = ".tfrs-dlrm.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


class InUseError(ValueError):
    """Another process holds the lock."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
      pid: its number on its host; 0 if it is not known.
      host: the name of its machine.
      since: when it got the lock, in UTC.
      work: what it does, as in "trains a run".
      key: equal for processes that would write the same.
    """

    pid: int = 0
    host: str = ""
    since: str = ""
    work: str = ""
    key: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        here = self.host == socket.gethostname()
        who = "this process" if here and self.pid == os.getpid() else f"process {self.pid}"
        return f"{who} on {self.host}, which {self.work} since {self.since}"


class Lock:
    """A lock of the processes that see a file.

    Args:
      path: the file; its directory is made if it is missing.
      name: of what is locked, for messages.
      work: what its owner does, for the messages of others.
      key: equal for processes that would write the same.
      shared: whether several processes may hold it together, if none holds it alone.
      temporary: whether the file goes away when the lock is released.
    """

    def __init__(
        self, path: str, name: str, work: str, key: str = "", *, shared: bool = False, temporary: bool = False
    ):
        self._path, self._name, self._work, self._key = path, name, work, key
        self._shared, self._temporary = shared, temporary
        self._file: io.TextIOWrapper | None = None
        self._made: list[str] = []  # the directories that this lock made, from below

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self, wait: Callable[[Owner], bool] | None = None) -> bool:
        """Takes the lock, if this object does not hold it; returns whether it had to wait for another process.

        Args:
          wait: whether to wait for an owner; by default no owner is waited for.

        Raises:
          InUseError: another process holds it, and is not waited for.
          OSError: the file cannot be made.
        """
        waited = False
        while self._file is None:
            file = self._open()
            try:
                waited = self._lock(file, wait) or waited
                # Its owner may have removed the file after this process had opened it.
                if _is_at(file, self._path):
                    if not self._shared:
                        self._sign(file)
                    self._file = file
            finally:
                if self._file is None:
                    file.close()
        return waited

    def release(self) -> None:
        """Gives the lock back."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with file:
            if self._temporary:
                # Before the next owner, who waits for this lock, may write a file of its own in them.
                with contextlib.suppress(OSError):  # they hold something by now
                    os.remove(self._path)
                    for directory in self._made:
                        os.rmdir(directory)
            self._made = []
            with contextlib.suppress(OSError):  # processes that this one started may have the file open as well
                fcntl.flock(file, fcntl.LOCK_UN)

    def is_taken(self) -> bool:
        """Whether another process holds the lock alone."""
        if self._file is not None or not os.path.exists(self._path):
            return False
        with open(self._path, "r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as e:
                return e.errno not in _NO_LOCKS
        return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _open(self) -> io.TextIOWrapper:
        directory = os.path.dirname(os.path.abspath(self._path))
        with unwritable(self._name):
            while True:
                if missing := _missing(directory):
                    os.makedirs(directory, exist_ok=True)
                    self._made = missing
                try:
                    descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                    return open(descriptor, "r+", encoding="utf-8")
                except FileNotFoundError:  # an owner that made the directory has just removed it
                    if os.path.islink(self._path):  # to a directory that does not exist
                        raise

    def _lock(self, file: io.TextIOWrapper, wait: Callable[[Owner], bool] | None) -> bool:
        """Locks an open file; returns whether it had to wait."""
        kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return False
        except OSError as e:
            if e.errno in _NO_LOCKS:
                logging.warning(
                    "%s: its file system has no locks (%s); make sure that no other process writes it", self._name, e
                )
                return False
            if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        owner = _owner(file)
        if not (wait and wait(owner)):
            raise InUseError(
                f"{self._name}: in use by {owner}. One process at a time writes it: wait until that one ends, stop it,"
                " or choose another place"
            )
        logging.warning("%s: waiting for %s", self._name, owner)
        fcntl.flock(file, kind)
        return True

    def _sign(self, file: io.TextIOWrapper) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        owner = Owner(os.getpid(), socket.gethostname(), now, self._work, self._key)
        file.seek(0)
        file.truncate()
        file.write(json.dumps(dataclasses.asdict(owner)) + "\n")
        file.flush()


def directory_lock(directory: str, work: str, key: str = "") -> Lock:
    """Returns the lock of those who write a directory; while it is not held, the directory has no trace of it."""
    return Lock(os.path.join(directory, LOCK_FILE), directory, work, key, temporary=True)


def _owner(file: io.TextIOWrapper) -> Owner:
    """Reads who holds a lock."""
    for _ in range(20):  # the owner may have the lock, and not have signed yet
        file.seek(0)
        with contextlib.suppress(ValueError, TypeError):
            return Owner(**json.loads(file.read()))
        time.sleep(0.01)
    return Owner()


def _missing(directory: str) -> list[str]:
    """Returns the directories on the way to one that do not exist, from below."""
    found = []
    while not os.path.exists(directory):  # nor does the target of a link that leads nowhere
        found.append(directory)
        directory = os.path.dirname(directory)
    return found


def _is_at(file: io.TextIOWrapper, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
