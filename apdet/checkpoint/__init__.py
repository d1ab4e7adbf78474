"""Checkpoints: read safely, written whole, fitted to the model; foreign weights converted."""

from apdet.checkpoint.checkpointer import Checkpointer, build_checkpointer

__all__ = ["Checkpointer", "build_checkpointer"]
