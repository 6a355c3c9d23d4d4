"""The configuration of any model, from one set of fields for all."""

import dataclasses

from tfrs_dlrm.config import MODELS, ModelConfig


def any_model(name: str, **fields) -> ModelConfig:
    """Fields that the model lacks are left out."""
    known = {f.name for f in dataclasses.fields(MODELS[name]) if f.init}
    return MODELS[name](**{field: value for field, value in fields.items() if field in known})
