"""Reads and writes checkpoints safely, fits weights to a model, and converts foreign weights."""

from apdet.checkpoint.array_pickle import load_array_pickle
from apdet.checkpoint.checkpointer import Checkpointer
from apdet.checkpoint.classes import resolve_weights_classes
from apdet.data.register import training_classes

__all__ = ["Checkpointer", "load_array_pickle", "resolve_weights_classes", "training_classes"]
