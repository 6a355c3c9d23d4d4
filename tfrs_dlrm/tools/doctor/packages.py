"""Installed packages, the versions that this package needs, and the distribution that owns `tensorflow`."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu")
"""Distributions that all contain the package `tensorflow`: pip silently overwrites one with another."""
SHOWN = (*TENSORFLOWS, "tf-keras", "keras", "tensorflow-recommenders", "protobuf", "libtpu", "numpy", "tensorflow-io")
_EXTRAS = ("", "tpu", "io")


@dataclasses.dataclass(frozen=True)
class Packages:
    """The installed packages, from their metadata.

    Attributes:
      python: the version of Python.
      versions: the installed versions of this distribution, of `SHOWN`, and of what this one requires.
      demands: by extra (`""` for none) and distribution: the versions that fit.
      python_demand: the versions of Python that fit.
      owner: which of `TENSORFLOWS` has its libraries on the disk; empty if none has, or for a mixture.
    """

    python: str
    versions: dict[str, str]
    demands: dict[str, dict[str, SpecifierSet]]
    python_demand: SpecifierSet
    owner: str

    @property
    def tensorflow(self) -> str:
        """The version of the package `tensorflow` that Python would import; empty if it is missing or damaged."""
        return self.versions.get(self.owner, "")

    @property
    def tensorflows(self) -> list[str]:
        """The installed distributions of `TENSORFLOWS`, with their versions."""
        return [f"{name} {self.versions[name]}" for name in TENSORFLOWS if name in self.versions]

    def demand(self, name: str, extra: str = "") -> SpecifierSet:
        """Returns the versions of a distribution that fit; by default any."""
        return self.demands.get(extra, {}).get(name, SpecifierSet())

    def misfit(self, name: str, extra: str = "") -> str:
        """Says why a distribution does not fit; empty if it does."""
        demand = self.demand(name, extra)
        wanted = f"; {demand} is needed" if demand else ""
        if name not in self.versions:
            return f"{name} is not installed{wanted}"
        fits = demand.contains(self.versions[name], prereleases=True)
        return "" if fits else f"{name} {self.versions[name]} does not fit{wanted}"

    def keras_misfit(self, tensorflow: str) -> str:
        """Says why tf-keras, whose minor version must be TensorFlow's, does not fit; empty if it does."""
        keras = self.versions.get("tf-keras", tensorflow)
        if keras.split(".")[:2] == tensorflow.split(".")[:2]:
            return ""
        return f"tf-keras {keras} does not go with TensorFlow {tensorflow}; the two need the same minor version"


def examine_packages(path: Sequence[str] | None = None) -> Packages:
    """Reads the metadata of the installed packages.

    Args:
      path: the directories to read; by default `sys.path`.
    """
    this = _find("tfrs-dlrm", path)
    demands = _demands(this)
    names = {"tfrs-dlrm", *SHOWN, *demands[""]}
    found = {name: d for name in sorted(names) if (d := _find(name, path)) is not None}
    # Each tensorflow-tpu works with few versions of libtpu; with others its import aborts the process.
    for name, demand in _demands(found.get("tensorflow-tpu"))[""].items():
        if name == "libtpu":
            demands["tpu"][name] = demands["tpu"].get(name, SpecifierSet()) & demand
    owners = [name for name in TENSORFLOWS if name in found and _is_on_disk(found[name])]
    return Packages(
        python=platform.python_version(),
        versions={name: d.version for name, d in found.items()},
        demands=demands,
        python_demand=SpecifierSet((this.metadata["Requires-Python"] or "") if this else ""),
        owner=owners[0] if len(owners) == 1 else "",
    )


def _find(name: str, path: Sequence[str] | None) -> metadata.Distribution | None:
    found = metadata.distributions(name=name, path=list(sys.path if path is None else path))
    return next(iter(found), None)


def _demands(distribution: metadata.Distribution | None) -> dict[str, dict[str, SpecifierSet]]:
    demands: dict[str, dict[str, SpecifierSet]] = {extra: {} for extra in _EXTRAS}
    for text in (distribution and distribution.requires) or ():
        requirement = Requirement(text)
        for extra in _EXTRAS:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                demands[extra][canonicalize_name(requirement.name)] = requirement.specifier
                break  # a requirement without an extra belongs to no extra
    return demands


def _is_on_disk(distribution: metadata.Distribution) -> bool:
    """Whether TensorFlow's libraries have the sizes that this distribution records: no two builds have equal ones."""
    # Not Distribution.files, which takes a second for TensorFlow's 20,000 files.
    record = distribution.read_text("RECORD") or ""  # installers other than pip may write none
    for line in record.splitlines():
        if line.startswith("tensorflow/libtensorflow_"):
            name, _, size = line.rsplit(",", 2)
            try:
                if os.path.getsize(str(distribution.locate_file(name))) != int(size):
                    return False
            except FileNotFoundError:
                return False
    return True
