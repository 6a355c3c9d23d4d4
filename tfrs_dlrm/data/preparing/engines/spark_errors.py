"""What went wrong on executors, in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

# The last line of a Python traceback.
_PYTHON = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.*)$", re.MULTILINE)
_JAVA = re.compile(r"^(?:Caused by: )?[\w.$]*(?:Exception|Error): (.+)$", re.MULTILINE)


@contextlib.contextmanager
def explained(master: str) -> Iterator[None]:
    """Turns what Spark raises into an OSError that says what to do.

    Raises:
      OSError: naming the master.
    """
    try:
        yield
    except Exception as e:
        if not type(e).__module__.startswith(("pyspark", "py4j")) and not isinstance(e, (OSError, EOFError)):
            raise
        raise OSError(_explanation(str(e), master)) from e


def _explanation(text: str, master: str) -> str:
    python = _PYTHON.findall(text)
    kind, message = next(((k, m) for k, m in reversed(python) if not k.startswith(("Py4J", "Spark"))), ("", ""))
    if kind in ("ModuleNotFoundError", "ImportError"):
        return (
            f"the executors of {master} cannot import all that they need: {message}. Install tfrs-dlrm, of the same"
            " version as here, in the Python that PYSPARK_PYTHON names there, or send an environment along; see"
            " docs/guides/cluster.md"
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return (
            f"the executors of {master} run another version of Python than this process; set PYSPARK_PYTHON to one of"
            " the same version"
        )
    if "exited unexpectedly" in text or "crashed" in text:
        return (
            f"a Python process of {master} died again and again, perhaps for want of memory: give executors more"
            " (spark.executor.memoryOverhead) or fewer cores each (spark.executor.cores). Then run the same command"
            " again, and it goes on where it was"
        )
    if kind in ("FileNotFoundError", "TakenOverError"):
        return message
    shown = f"{kind}: {message}" if kind else next(iter(_JAVA.findall(text)), text.strip().split("\n", 1)[0])
    return f"Spark failed on {master}: {shown}. Run the same command again, and it goes on where it was"
