"""Starts a Spark session, after checks that fail early, and explains errors of executors."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from tfrs_dlrm.messages import install_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = 17
_ATTEMPTS = 4  # per task; Spark's default on clusters
_CONNECT_S = 5.0
_LOCAL = re.compile(r"local(?:\[(\*|\d+)(?:, *(\d+))?\])?")
# The last line of a Python traceback.
_PYTHON = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.*)$", re.MULTILINE)
_JAVA = re.compile(r"^(?:Caused by: )?[\w.$]*(?:Exception|Error): (.+)$", re.MULTILINE)
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


@contextlib.contextmanager
def session(master: str | None) -> Iterator[SparkSession]:
    """Uses the active Spark session, or starts one and stops it at the end.

    The standard error of Spark and of a local session's processes goes to a file, which is removed after success.

    Args:
      master: the master; None means the one of the active session or `spark-submit`, or `local[*]`.

    Raises:
      ImportError: PySpark is missing or too old.
      ValueError: the master is of an unknown kind, or the active session has another one.
      OSError: Java 17 is missing, or the master does not answer.
    """
    spark_sql = _import_pyspark()
    active = spark_sql.SparkSession.getActiveSession()
    if active is not None:
        if master is not None and with_retries(master) != active.sparkContext.master:
            raise ValueError(
                f"master={master!r}, but the active Spark session has {active.sparkContext.master!r}; leave master out"
                " to use that session, or stop it first"
            )
        yield active
        return
    check(master)
    if master is None and not _submitted():
        master = "local[*]"
    builder = spark_sql.SparkSession.builder.appName("tfrs-dlrm prepare")
    for key, value in {**_SETTINGS, **(_local_settings() if is_local(master) else {})}.items():
        builder = builder.config(key, value)
    if master is not None:
        builder = builder.master(with_retries(master))
    with _log_file() as log, _no_reports_of_py4j():
        try:
            with _python_of_executors(master), _stderr_to(log):
                spark = builder.getOrCreate()
        except Exception as e:  # Java and Py4J raise many kinds
            raise OSError(f"Spark did not start with master={master!r}: {_first_line(e)}") from e
        try:
            yield spark
        finally:
            with contextlib.suppress(Exception), warnings.catch_warnings():  # Spark may be what failed
                warnings.simplefilter("ignore", RuntimeWarning)
                spark.stop()


@contextlib.contextmanager
def _no_reports_of_py4j() -> Iterator[None]:
    """Keeps Py4J from logging what it also raises, such as the end by a signal, with a traceback.

    It logs some by its own logger, and some by the root logger.
    """
    own, root = python_logging.getLogger("py4j"), python_logging.getLogger()
    level = own.level
    own.setLevel(python_logging.CRITICAL)
    root.addFilter(_not_of_py4j)
    try:
        yield
    finally:
        root.removeFilter(_not_of_py4j)
        own.setLevel(level)


def _not_of_py4j(record: python_logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def check(master: str | None) -> None:
    """Checks in a few seconds what `session` needs, and raises the same errors."""
    _import_pyspark()
    if master is not None:
        check_master(master)
    if not _submitted():
        check_java()


def _submitted() -> bool:
    """Whether this program runs under spark-submit, which chooses the master and starts Java."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def is_local(master: str | None) -> bool:
    """Whether a master runs on this machine only."""
    return master is not None and _LOCAL.fullmatch(master) is not None


def with_retries(master: str) -> str:
    """Makes a local master try tasks several times, as others do."""
    match = _LOCAL.fullmatch(master)
    return f"local[{match.group(1) or 1},{match.group(2) or _ATTEMPTS}]" if match else master


def check_master(master: str) -> None:
    """Checks that a master answers.

    Raises:
      ValueError: it is of an unknown kind.
      OSError: it does not answer, or the configuration of yarn is missing.
    """
    if is_local(master):
        return
    if master == "yarn":
        if not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & os.environ.keys():
            raise OSError("master='yarn': set HADOOP_CONF_DIR to the directory of the cluster's configuration")
        return
    kind, _, rest = master.partition("://")
    if kind not in ("spark", "k8s") or not rest:
        raise ValueError(f"master={master!r} is none of local, local[N], local[*], spark://HOST:PORT, yarn, k8s://HOST")
    addresses = [_address(a, 7077 if kind == "spark" else 443) for a in rest.split(",")]
    errors = []
    for host, port in addresses:
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_S):
                return
        except OSError as e:
            errors.append(f"{host}:{port}: {e}")
    raise ConnectionError(
        f"master={master!r} does not answer ({'; '.join(errors)}); is it started, and can this machine reach it?"
    )


def _address(text: str, port: int) -> tuple[str, int]:
    host, colon, given = text.partition("://")[2 if "://" in text else 0].rstrip("/").rpartition(":")
    if not colon:
        return given, port
    if not given.isdecimal():
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host.strip("[]"), int(given)


def check_java() -> None:
    """Checks that Spark finds a usable Java.

    Raises:
      OSError: Java is missing or too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    advice = f"install Java {JAVA} (on Debian: apt-get install openjdk-{JAVA}-jre-headless), or set JAVA_HOME to one"
    if java is None or not os.path.isfile(java):
        where = f"JAVA_HOME={home} has no bin/java" if home else "the PATH has no java"
        raise OSError(f"engine='spark' needs Java, and {where}; {advice}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    if version is None:
        raise OSError(f"engine='spark' needs Java, and {java} -version fails: {shown.strip()[:200]!r}; {advice}")
    if int(version.group(1)) < JAVA:
        raise OSError(f"engine='spark' needs Java {JAVA} or later, and {java} is Java {version.group(1)}; {advice}")


def _import_pyspark():  # type: ignore[no-untyped-def]
    advice = install_command("spark")
    try:
        import pyspark
        import pyspark.sql
    except ImportError as e:
        raise ImportError(f"engine='spark' needs PySpark: {advice}") from e
    if int(pyspark.__version__.split(".")[0]) < 4:
        raise ImportError(f"engine='spark' needs PySpark 4, this is {pyspark.__version__}: {advice}")
    return pyspark.sql


def _local_settings() -> dict[str, str]:
    """Settings for a local session: it uses loopback, and executors import the package of this process."""
    package = str(Path(__file__).parents[4])
    python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": python_path,
    }


@contextlib.contextmanager
def _python_of_executors(master: str | None) -> Iterator[None]:
    """Lets executors on this machine run this Python; elsewhere the cluster decides."""
    if not is_local(master) or "PYSPARK_PYTHON" in os.environ:
        yield
        return
    os.environ["PYSPARK_PYTHON"] = sys.executable
    try:
        yield
    finally:
        del os.environ["PYSPARK_PYTHON"]


@contextlib.contextmanager
def _log_file() -> Iterator[str]:
    """A log file, which is kept if Spark failed, but not if the data are bad."""
    directory = tempfile.mkdtemp(prefix="tfrs-dlrm-spark-")
    path = os.path.join(directory, "spark.log")
    try:
        yield path
    except OSError:
        logging.error("the log of Spark is in %s", path)
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _stderr_to(path: str) -> Iterator[None]:
    """Sends the standard error of processes that start inside to a file, as long as they live."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Exception: " in line), lines[0] if lines else type(error).__name__)


@contextlib.contextmanager
def explained(master: str) -> Iterator[None]:
    """Turns errors of Spark into an OSError that names the master and says what to do."""
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
            f"the executors of {master} miss a module: {message}. Install the same version"
            " of tfrs-dlrm in the executors' PYSPARK_PYTHON, or send an environment along; see"
            " docs/guides/cluster.md"
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return (
            f"the executors of {master} run another version of Python than this process; set PYSPARK_PYTHON to one of"
            " the same version"
        )
    if "exited unexpectedly" in text or "crashed" in text:
        return (
            f"a Python process of {master} died several times; it may lack memory: give executors more"
            " (spark.executor.memoryOverhead) or fewer cores each (spark.executor.cores). Then run the same command"
            " again, and it resumes"
        )
    if kind in ("FileNotFoundError", "TakenOverError"):
        return message
    shown = f"{kind}: {message}" if kind else next(iter(_JAVA.findall(text)), text.strip().split("\n", 1)[0])
    return f"Spark failed on {master}: {shown}. Run the same command again, and it resumes"
