"""A directory of installed packages, as pip would leave it, without the packages."""

from pathlib import Path

REQUIRES = (
    "numpy>=1.26",
    "protobuf<7; extra == 'tpu'",
    "libtpu<0.0.32; extra == 'tpu'",
    "tensorflow>=2.16,<2.22",
    "tensorflow-tpu>=2.19,<2.21; extra == 'tpu'",
    "tf-keras>=2.16,<2.22",
)
TPU_SITE = {"numpy": "2.4.6", "protobuf": "6.33.6", "tf-keras": "2.20.1", "libtpu": "0.0.31"}
_LIBRARIES = ("tensorflow/libtensorflow_cc.so.2", "tensorflow/libtensorflow_framework.so.2")


def install(site: Path, name: str, version: str, requires: tuple[str, ...] = (), size: int = 0) -> None:
    """Writes the metadata, and of a TensorFlow its libraries of `size` bytes, over what is there."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Requires-Python: >=3.10,<3.14"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n")
    if size:
        (info / "RECORD").write_text("".join(f"{file},sha256=x,{size}\n" for file in _LIBRARIES))
        (site / "tensorflow").mkdir(exist_ok=True)
        for file in _LIBRARIES:
            (site / file).write_bytes(b"x" * size)


def tpu_site(site: Path, **versions: str) -> list[str]:
    """Everything that a TPU needs, with other versions where they are given; "" leaves a package out."""
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    install(site, "tfrs-dlrm", "0.1.0", REQUIRES)
    for name, version in (TPU_SITE | names).items():
        if version and not name.startswith("tensorflow"):
            install(site, name, version)
    tensorflows = {"tensorflow": "2.20.0", "tensorflow-tpu": "2.20.0"} | names
    for size, name in enumerate(("tensorflow", "tensorflow-tpu"), 1):
        if tensorflows[name]:
            install(site, name, tensorflows[name], ("libtpu~=0.0.14",) if name == "tensorflow-tpu" else (), size)
    return [str(site)]
