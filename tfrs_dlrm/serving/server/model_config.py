"""Which models and versions are served: TF Serving's ModelServerConfig, from a file or from a request.

Messages begin as those of tensorflow_serving/model_servers/server_core.cc.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format

from tfrs_dlrm.serving.bundle.model_names import check_served_name
from tfrs_dlrm.serving.protocol import FailedPrecondition, InvalidRequest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.stores import is_store_url, join


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """The versions of a model that are served, besides those that have a label.

    Attributes:
      most: how many of the newest; None for all.
      numbers: the only versions that are served; None for any.
    """

    most: int | None = 1
    numbers: frozenset[int] | None = None

    def takes(self, number: int, newer: int) -> bool:
        """Returns whether a version is served, of which `newer` others are served that are newer."""
        return (self.numbers is None or number in self.numbers) and (self.most is None or newer < self.most)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """What a configuration says of one model."""

    path: str
    policy: VersionPolicy
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read_config(config: Any, root: str, default: VersionPolicy, paths: Mapping[str, str]) -> dict[str, ModelSettings]:
    """Returns the settings of the models of a ModelServerConfig by name.

    Args:
      config: the proto.
      root: the directory, or address in a store, that relative paths begin at.
      default: the policy of a model that has none.
      paths: by name, the paths of models whose path is left out.

    Raises:
      InvalidRequest: the configuration has another form, or a setting that is not supported.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise InvalidRequest(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently"
            " supported"
        )
    settings: dict[str, ModelSettings] = {}
    for model in config.model_config_list.config:
        if model.name in settings:
            raise InvalidRequest(f"Illegal to list model {model.name} multiple times in config list")
        _check_name(model)
        if model.model_platform not in ("", "tensorflow"):
            raise FailedPrecondition(
                f"PlatformConfigMap has no entry for platform {model.model_platform}; model {model.name}:"
                " 'tensorflow' is served"
            )
        path = _path(model, root, paths)
        settings[model.name] = ModelSettings(path, _policy(model, default), dict(model.version_labels))
    return settings


def _check_name(model: Any) -> None:
    try:
        check_served_name(model.name)
    except ValueError as e:
        raise InvalidRequest(f"model_config_list: {e}") from e


def _path(model: Any, root: str, paths: Mapping[str, str]) -> str:
    given = model.base_path or paths.get(model.name, "")
    if not given:
        raise InvalidRequest(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        )
    path = given if is_store_url(given) or os.path.isabs(given) else join(root, given)
    return path.rstrip("/") if is_store_url(path) else os.path.abspath(path)


def _policy(model: Any, default: VersionPolicy) -> VersionPolicy:
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind is None:
        return default
    if kind == "latest":
        return VersionPolicy(max(1, policy.latest.num_versions))
    if kind == "all":
        return VersionPolicy(None)
    if kind == "specific":
        return VersionPolicy(None, frozenset(policy.specific.versions))
    raise InvalidRequest(f"model {model.name}: version policy {kind!r} is not supported; latest, all and specific are")


def read_config_file(path: str) -> Any:
    """Returns the ModelServerConfig of a file in protobuf's text format, as TF Serving's --model_config_file.

    Raises:
      ValueError: the file is no such configuration.
    """
    with open(path, encoding="utf-8") as f:
        text = f.read()
    try:
        return text_format.Parse(text, protos.management.ReloadConfigRequest().config)
    except text_format.ParseError as e:
        raise ValueError(f"{path} is no ModelServerConfig in protobuf's text format: {e}") from e


def write_config_file(path: str, config: Any) -> None:
    """Replaces the file by a configuration; a reader sees the old one or the new one.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = f"{path}.unfinished"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text_format.MessageToString(config))
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
