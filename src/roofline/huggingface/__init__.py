"""config.json → `Model`: one small reader per family, found by `model_type`."""

from roofline.huggingface.config import read_json
from roofline.huggingface.registry import model_from_config, reads, supported_model_types

__all__ = ["model_from_config", "read_json", "reads", "supported_model_types"]
