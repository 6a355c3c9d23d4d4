"""Which packages are installed, what this one demands of them, and whose files the package `tensorflow` is."""

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
"""Distributions that all bring the one package `tensorflow`: pip writes each over the others without a word."""
SHOWN = (*TENSORFLOWS, "tf-keras", "keras", "tensorflow-recommenders", "protobuf", "libtpu", "numpy", "tensorflow-io")
_EXTRAS = ("", "tpu", "io")


@dataclasses.dataclass(frozen=True)
class Packages:
    """What importlib.metadata knows.

    Attributes:
      python: the version of Python.
      versions: of the distributions that are installed, of this one, those of `SHOWN` and those that this one demands.
      demands: by extra (`""` is without one) and distribution: the versions that fit.
      python_demand: likewise for Python.
      owner: of `TENSORFLOWS`, the one whose libraries are on the disk; empty where none is, or a mixture.
    """

    python: str
    versions: dict[str, str]
    demands: dict[str, dict[str, SpecifierSet]]
    python_demand: SpecifierSet
    owner: str

    @property
    def tensorflow(self) -> str:
        """The version of the package `tensorflow` that Python would import; empty where there is no whole one."""
        return self.versions.get(self.owner, "")

    @property
    def tensorflows(self) -> list[str]:
        """The installed ones of `TENSORFLOWS`, with their versions."""
        return [f"{name} {self.versions[name]}" for name in TENSORFLOWS if name in self.versions]

    def demand(self, name: str, extra: str = "") -> SpecifierSet:
        """The versions of a distribution that fit; any, where nothing is demanded."""
        return self.demands.get(extra, {}).get(name, SpecifierSet())

    def misfit(self, name: str, extra: str = "") -> str:
        """What is wrong with a distribution, in words; empty where its version fits."""
        demand = self.demand(name, extra)
        wanted = f"; {demand} is needed" if demand else ""
        if name not in self.versions:
            return f"{name} is not installed{wanted}"
        fits = demand.contains(self.versions[name], prereleases=True)
        return "" if fits else f"{name} {self.versions[name]} does not fit{wanted}"

    def keras_misfit(self, tensorflow: str) -> str:
        """What is wrong with tf-keras, whose minor version has to be TensorFlow's; empty where nothing is."""
        keras = self.versions.get("tf-keras", tensorflow)
        if keras.split(".")[:2] == tensorflow.split(".")[:2]:
            return ""
        return f"tf-keras {keras} does not go with TensorFlow {tensorflow}; the two need the same minor version"


def examine_packages(path: Sequence[str] | None = None) -> Packages:
    """Reads the metadata of what is installed.

    Args:
      path: the directories to look into; by default those of `sys.path`.
    """
    this = _find("tfrs-dlrm", path)
    demands = _demands(this)
    names = {"tfrs-dlrm", *SHOWN, *demands[""]}
    found = {name: d for name in sorted(names) if (d := _find(name, path)) is not None}
    # Each tensorflow-tpu goes with some versions of libtpu only; with others its import aborts the process.
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
                break  # what is demanded without an extra is not that extra's
    return demands


def _is_on_disk(distribution: metadata.Distribution) -> bool:
    """Whether TensorFlow's libraries are the size that this distribution brought them in: no two builds' are."""
    # Not Distribution.files, which takes a second over TensorFlow's 20,000.
    record = distribution.read_text("RECORD") or ""  # other installers than pip may write none
    for line in record.splitlines():
        if line.startswith("tensorflow/libtensorflow_"):
            name, _, size = line.rsplit(",", 2)
            try:
                if os.path.getsize(str(distribution.locate_file(name))) != int(size):
                    return False
            except FileNotFoundError:
                return False
    return True
