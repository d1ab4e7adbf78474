"""Configs in YAML or Python, and every key that apdet reads from them.

A config of either kind becomes a `TrainingPlan` of values and builders. The engine reads the plan,
never the config.
"""

from apdet.config.datasets import register_datasets
from apdet.config.defaults import add_apdet_config
from apdet.config.plan import TrainingPlan
from apdet.config.read import Config, read_config
from apdet.config.schedule import scale_to_batch_size
from apdet.config.yaml import load_config

__all__ = [
    "Config",
    "TrainingPlan",
    "add_apdet_config",
    "load_config",
    "read_config",
    "register_datasets",
    "scale_to_batch_size",
]
