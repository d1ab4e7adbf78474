"""What describes a training: YAML files, Python files, and every key that they may hold."""

from apdet.config.defaults import add_apdet_config
from apdet.config.schedule import scale_to_batch_size
from apdet.config.yaml import load_config

__all__ = ["add_apdet_config", "load_config", "scale_to_batch_size"]
