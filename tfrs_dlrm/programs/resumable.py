"""How programs end whose work the same command resumes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from tfrs_dlrm.programs.launch import Leave


@contextlib.contextmanager
def resumable(work: str) -> Iterator[None]:
    """Ends the process with a line that says how to go on, if training inside `with` is stopped or loses a server.

    Args:
      work: what the same command resumes, such as `run`.
    """
    from tfrs_dlrm.distribute.cluster import EXIT_SERVER_LOST, ServerLost
    from tfrs_dlrm.training.callbacks import Interrupted

    try:
        yield
    except Interrupted as e:
        print(f"{e}. The same command resumes the {work}.")
        sys.exit(e.exit_code)
    except ServerLost as e:
        print(f"error: {e}. Once the server is back, the same command resumes the {work}.", file=sys.stderr)
        raise Leave(EXIT_SERVER_LOST) from e
