"""The models of a server: found below a directory, or listed by a configuration that requests can change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from absl import logging

from tfrs_dlrm.messages.log_rate import LogRate
from tfrs_dlrm.serving.protocol import FailedPrecondition, InvalidRequest, ServingError, Unavailable
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.server.model_config import (
    ModelSettings,
    VersionPolicy,
    read_config,
    read_config_file,
    write_config_file,
)
from tfrs_dlrm.serving.server.served_model import ServedModel, find_models, holds_models
from tfrs_dlrm.serving.server.uninterrupted import uninterrupted

_LOOKS = 100  # at a new model, until it answers or is refused


class ServedModels:
    """The models of a server by name; only the event loop changes them.

    As in TF Serving, a configuration lists all models: others are unloaded, and the directory is not searched again.
    Without one, models are those below the directory, also those that appear later. A model whose directory vanishes
    stays.

    Args:
      root: a model's directory of versions, or a directory of models.
      config_file: the file of the configuration, which requests replace; it need not exist. Empty for none.
      policy: of models for which the configuration has none.
      threads: that look at the disk.
      make: makes a model of its name, path and policy.

    Attributes:
      models: by name.

    Raises:
      ValueError: no model is found, or the file is damaged.
    """

    def __init__(
        self,
        root: str,
        config_file: str,
        policy: VersionPolicy,
        threads: Executor,
        make: Callable[[str, str, VersionPolicy], ServedModel],
    ):
        self._root, self._file, self._policy, self._threads, self._make = root, config_file, policy, threads, make
        self.models: dict[str, ServedModel] = {}
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[Any]] = set()
        self._searches = self._closed = False
        self._failed_searches, self._failed_models = LogRate(60), LogRate(60)
        if config_file and os.path.exists(config_file):
            try:
                settings = read_config(read_config_file(config_file), root, policy, {})
            except InvalidRequest as e:
                raise ValueError(f"{config_file}: {e}") from e
            self._apply(settings)
        else:
            self._searches = holds_models(root)
            self._apply({name: ModelSettings(path, policy) for name, path in find_models(root).items()})

    async def poll(self) -> None:
        """Looks for new models and versions; what fails is logged."""
        async with self._changing:
            if self._closed:
                return
            if self._searches:
                await self._search()
            for model in list(self.models.values()):
                await self._poll_one(model)

    async def reload(self, config: Any) -> None:
        """Serves what a ModelServerConfig says: models, versions and labels.

        Raises:
          InvalidRequest: the configuration is wrong, or a label is for a version that is not loaded; nothing changes.
          ServingError: a new model cannot be loaded; the configuration holds all the same. Or the server ends, or the
            log of a new model cannot be written; nothing changes.
        """
        # A caller that gives up leaves no half of a configuration.
        await uninterrupted(self._task(self._reload(config)))

    async def close(self) -> None:
        """Unloads all models after their last requests; none is loaded any more."""
        self._closed = True
        async with self._changing:  # a reload ends first
            for model in self.models.values():
                self._task(model.close())
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def _reload(self, config: Any) -> None:
        async with self._changing:
            if self._closed:
                raise Unavailable("the server is ending; send the configuration once it has restarted")
            paths = {name: model.path for name, model in self.models.items()}
            settings = read_config(config, self._root, self._policy, paths)
            if not settings:
                return  # as in TF Serving, an empty configuration changes nothing
            self._check(settings)
            new = [name for name in settings if name not in self.models]
            try:
                self._apply(settings)
            except OSError as e:
                raise ServingError(f"the models cannot be served: {e}") from e
            self._searches = False
            await self._store(settings)
            for name in settings:
                await self._settle(self.models[name], name in new)
        _check_loaded([self.models[name] for name in new if name in self.models])

    def _check(self, settings: dict[str, ModelSettings]) -> None:
        for name, wanted in settings.items():
            model = self.models.get(name)
            if model and model.path != wanted.path:
                raise InvalidRequest(
                    f"model {name!r} is served from {model.path}; base_path {wanted.path} needs another name, or a"
                    " restart of the server"
                )
            loaded = {version.number for version in model.available()} if model else set()
            for number in wanted.labels.values():
                if number not in loaded:
                    raise FailedPrecondition(
                        f"Request to assign label to version {number} of model {name}, which is not currently"
                        " available for inference: load it by a request without the label, and wait for its status"
                    )

    def _apply(self, settings: dict[str, ModelSettings]) -> None:
        # What can fail comes first, so that it changes nothing.
        new = {name: self._make(name, s.path, s.policy) for name, s in settings.items() if name not in self.models}
        for name in [name for name in self.models if name not in settings]:
            logging.info("%s is no longer in the configuration, and is unloaded", name)
            self._task(self.models.pop(name).close())
        self.models.update(new)
        for name, wanted in settings.items():
            self.models[name].policy, self.models[name].labels = wanted.policy, dict(wanted.labels)

    async def _store(self, settings: dict[str, ModelSettings]) -> None:
        if not self._file:
            logging.warning("the new configuration ends with this process; --model_config_file=FILE stores it")
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, write_config_file, self._file, _proto(settings))
        except OSError as e:
            logging.error("the new configuration ends with this process: %s cannot be written: %s", self._file, e)

    async def _settle(self, model: ServedModel, new: bool) -> None:
        """Looks at a model; at a new one until it answers or a version of it is refused."""
        for _ in range(_LOOKS if new else 1):
            await self._poll_one(model)
            if self._closed or model.available() or any(version.error for version in model.versions.values()):
                break
            await asyncio.sleep(0.1)
        for number in sorted((model.policy.numbers or set()) - model.versions.keys()):
            logging.warning(
                "Version %d of servable %s, which was requested to be served as a 'specific' version in the servable's"
                " version policy, was not found in the file system",
                number,
                model.name,
            )

    async def _search(self) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _find, self._root)
        except OSError as e:  # a disk of a network may be back at the next look
            if self._failed_searches.due():
                logging.error("%s: looking for models failed, and is tried again: %s", self._root, e)
            return
        for name, path in found.items():
            if name not in self.models:
                try:
                    self.models[name] = self._make(name, path, self._policy)
                    logging.info("%s is a new model", name)
                except OSError as e:
                    if self._failed_models.due():
                        logging.error("%s cannot be served: %s", name, e)

    async def _poll_one(self, model: ServedModel) -> None:
        try:
            await model.poll()
        except Exception:
            logging.exception("%s: looking for versions in %s failed", model.name, model.path)

    def _task(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


def _find(root: str) -> dict[str, str]:
    try:
        return find_models(root) if holds_models(root) else {}
    except ValueError:  # the directory vanished, or its last model
        return {}


def _check_loaded(models: list[ServedModel]) -> None:
    missing = [model for model in models if not model.available()]
    if not missing:
        return
    errors = [version.error for model in missing for version in model.versions.values() if version.error]
    whys = "; ".join(errors) or "no version was found: " + ", ".join(model.path for model in missing)
    names = ", ".join(model.name for model in missing)
    raise ServingError(f"{len(missing)} model(s) did not become available: {{{names}}} due to error: {whys}", "UNKNOWN")


def _proto(settings: dict[str, ModelSettings]) -> Any:
    config = protos.management.ReloadConfigRequest().config
    for name, wanted in settings.items():
        model = config.model_config_list.config.add(name=name, base_path=wanted.path, model_platform="tensorflow")
        for label, number in wanted.labels.items():
            model.version_labels[label] = number
        policy = model.model_version_policy
        if wanted.policy.numbers is not None:
            policy.specific.versions.extend(sorted(wanted.policy.numbers))
        elif wanted.policy.most is None:
            policy.all.SetInParent()
        else:
            policy.latest.num_versions = wanted.policy.most
    return config
