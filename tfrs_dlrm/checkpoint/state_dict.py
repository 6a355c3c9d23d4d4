"""The state dict of a PyTorch model, read from files that cannot run code when they are read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

# What a user of PyTorch runs to make such a file.
_CONVERSION = """
    import numpy, torch
    state = torch.load({path!r}, map_location="cpu", weights_only=False)["state_dict"]
    numpy.savez({name!r}, **{{key: value.float().numpy() for key, value in state.items()}})
"""


class StateDict(Mapping[str, np.ndarray]):
    """The tensors of a `.npz` or `.safetensors` file by name, each read as float32 when it is asked for.

    Pickles, which PyTorch writes (`.pt`, `.pth`), are refused: reading one runs any code that it holds.

    Args:
      path: the file, on a disk.

    Raises:
      FileNotFoundError: the file does not exist.
      ImportError: the library `safetensors` is not installed.
      ValueError: the file has another format, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"{self.path}: no such file on this disk; give a .npz or .safetensors file")
        if self.path.endswith(".safetensors"):
            self._open_safetensors()
        elif self.path.endswith(".npz"):
            if not zipfile.is_zipfile(self.path):
                raise ValueError(f"{self.path}: damaged, or not written by numpy.savez")
            file = np.load(self.path, allow_pickle=False)
            self._keys, self._read = list(file.files), file.__getitem__
        else:
            name = f"{os.path.splitext(self.path)[0]}.npz"
            raise ValueError(
                f"{self.path}: neither a .npz nor a .safetensors file, and no other is read, because a pickle can run"
                " any code. If it is a checkpoint of yours, convert it where torch is installed:\n"
                + _CONVERSION.format(path=self.path, name=name)
            )

    def _open_safetensors(self) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError as e:
            raise ImportError(
                f"{self.path}: the library safetensors is missing: pip install safetensors, or give a .npz file"
            ) from e
        try:
            file = safe_open(self.path, framework="numpy")
        except SafetensorError as e:
            raise ValueError(f"{self.path}: no safetensors file, or damaged: {e}") from e
        self._keys, self._read = list(file.keys()), file.get_tensor

    def __getitem__(self, key: str) -> np.ndarray:
        """Reads a tensor.

        Raises:
          KeyError: the file has no such tensor.
          ValueError: it is no array of numbers, or damaged.
        """
        if key not in self._keys:
            raise KeyError(key)
        try:
            return np.asarray(self._read(key), np.float32)
        except (TypeError, ValueError, zipfile.BadZipFile) as e:
            raise ValueError(f"{self.path}: {key} is no array of numbers, or damaged: {e}") from e

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names, in the order of the file."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Returns the number of tensors."""
        return len(self._keys)
