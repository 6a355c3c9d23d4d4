"""The memory of the test processes: given back after each module, and summed up at the end of a run."""

import contextlib
import ctypes
import resource
import sys

import pytest


def trim() -> None:
    """Gives freed memory back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_custom_gradients() -> None:
    """Removes the graphs of `tf.custom_gradient` from TensorFlow's registry, which keeps them all, 10 MB a run."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    registered = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]


def resident() -> float:
    """The memory of this process in GB; 0 where /proc does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 1e9
    return 0.0


class Plugin:
    """Collects from each process its peak, and the modules after which it had grown most."""

    def __init__(self) -> None:
        self.grown: dict[str, float] = {}
        self.shown: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        before = resident()
        yield
        # The teardown of its fixtures included, so what a module leaves behind is counted with it.
        name = item.nodeid.partition("::")[0]
        self.grown[name] = self.grown.get(name, 0.0) + resident() - before

    def report(self) -> str:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # given in kB
        most = sorted(self.grown, key=self.grown.__getitem__)[:-4:-1]
        modules = ", ".join(f"{name} +{self.grown[name]:.2f}" for name in most)
        return f"at most {peak:.2f} GB, at the end {resident():.2f}; grown most in {modules}"

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["memory"] = self.report()
        elif self.grown:
            self.shown.append(self.report())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        if "memory" in getattr(node, "workeroutput", {}):  # not of a worker that crashed
            self.shown.append(f"{node.gateway.id}: {node.workeroutput['memory']}")

    def pytest_terminal_summary(self, terminalreporter):
        if self.shown:
            terminalreporter.section("memory of the test processes")
        for line in self.shown:
            terminalreporter.write_line(line)
