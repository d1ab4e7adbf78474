"""A checkpointer that runs no code, writes whole files, and checks that weights fit the model."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from apdet.checkpoint.array_pickle import load_array_pickle
from apdet.checkpoint.class_transfer import transfer_class_weights
from apdet.checkpoint.mismatch import describe_mismatch
from apdet.checkpoint.weights_file import read_torch
from apdet.errors import ArgumentError

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with safe loading, safe saving, and a check that weights fit.

    Args:
        model: the model whose weights are saved and loaded.
        save_dir: the folder of the checkpoints of a training.
        allow_mismatch: whether weights whose shape differs from the model's are left out with a
            warning. If not, they are an error.
        classes: the classes of the model, in order. They are saved with the weights. A training
            that starts from weights of known classes keeps the rows of shared classes, see
            :func:`transfer_class_weights`.
        weights_classes: the classes of the weights that a training starts from. Empty: the
            classes that are saved with the weights, if any.
        checkpointables: other objects to save and load, by name. Each has a ``state_dict``.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_mismatch: bool = False,
        classes: Sequence[str] = (),
        weights_classes: Sequence[str] = (),
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.allow_mismatch = allow_mismatch
        self.classes, self.weights_classes = list(classes), list(weights_classes)
        self._strict = False
        self._path = ""

    def load(
        self, path: str, checkpointables: list[str] | None = None, *, strict: bool = False
    ) -> dict[str, Any]:
        """Load weights, and the state of ``checkpointables``, from a file.

        Args:
            path: a checkpoint of apdet, or any file that Detectron2 reads, such as a model of its
                zoo. Empty: nothing is loaded.
            checkpointables: names of the other objects to load; None: all that are in the file.
            strict: whether the file must have exactly the weights of the model. No rows are then
                transferred between classes.

        Returns:
            The other content of the file.

        Raises:
            UserError: the file is missing, is broken, holds code or does not fit the model.
        """
        self._strict, self._path = strict, path
        if path and "://" not in path and not os.path.isfile(path):
            raise self._error(
                "{path}: no such checkpoint; see {weights} and {save_dir} "
                "(`apdet convert` makes a checkpoint of ImageNet weights)"
            )
        try:
            return super().load(path, checkpointables)
        except OSError as error:
            self._parsed_url_during_load = None
            raise self._error(
                "{path}: cannot be read: {error}. Download it by hand, and give the name of the "
                "file in {weights}",
                error=error,
            ) from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint in the folder if there is one, else load ``path``."""
        if resume and self.has_checkpoint():
            return self.load(self.get_checkpoint_file(), strict=True)
        return self.load(path, checkpointables=[])

    def load_to_evaluate(self, weights: str, *, resume: bool) -> None:
        """Load all weights of the model, and nothing else.

        Args:
            weights: a checkpoint of the model.
            resume: whether to load the last checkpoint in the folder instead, if there is one.

        Raises:
            UserError: there is no checkpoint, or :meth:`load` refuses it.
        """
        last = self.get_checkpoint_file() if resume else ""
        if not (last or weights):
            raise self._error("--eval-only needs {weights}, or --resume for the last checkpoint")
        self.load(last or weights, checkpointables=[], strict=True)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth, and make it the checkpoint to resume from.

        If the process is interrupted while it writes, the previous file remains.

        Raises:
            FloatingPointError: a weight is NaN or infinite. Nothing is written then.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = self.model.state_dict()
        bad = [key for key, weight in state.items() if not torch.isfinite(weight).all()]
        if bad:
            raise FloatingPointError(f"{len(bad)} weights are NaN or infinite, {bad[0]} the first")
        data = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if self.classes:
            data["classes"] = self.classes
        path = os.path.join(self.save_dir, f"{name}.pth")
        torch.save({"model": state, **data, **kwargs}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)
        logger.info("Saved %s", path)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make a file the checkpoint to resume from."""
        tag = os.path.join(self.save_dir, "last_checkpoint")
        with open(f"{tag}.tmp", "w") as file:
            file.write(last_filename_basename)
        os.replace(f"{tag}.tmp", tag)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pyth"):  # written by pycls
            weights = self._torch_load(filename).get("model_state", {})
            return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        if not filename.endswith(".pkl"):
            return super()._load_file(filename)
        data = load_array_pickle(filename)
        if "model" in data and "__author__" in data:
            return data
        # A file of Caffe2, such as an ImageNet backbone, needs Detectron2's heuristics for names.
        blobs = data.get("blobs", data)
        weights = {key: blob for key, blob in blobs.items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}

    def _torch_load(self, f: str) -> dict[str, Any]:
        return read_torch(f)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        weights_classes = self.weights_classes or checkpoint.get("classes")
        if not isinstance(weights_classes, list):  # another program may have saved anything here
            weights_classes = []
        if self.classes and weights_classes and not self._strict:
            self._convert_ndarray_to_tensor(checkpoint["model"])
            try:
                transfer_class_weights(
                    checkpoint["model"],
                    self.model,
                    [str(name) for name in weights_classes],
                    self.classes,
                    declared=bool(self.weights_classes),
                    allow_mismatch=self.allow_mismatch,
                )
            except ArgumentError as error:
                raise self._error("{path}: " + error.template, **error.values) from error
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        problems = describe_mismatch(
            incompatible,
            self.model.state_dict(),
            strict=self._strict,
            allow_mismatch=self.allow_mismatch,
        )
        if problems:
            raise self._error(
                "{path}: a checkpoint of another model than this one.\n{problems}\n"
                "Give {weights} a checkpoint of this model, or, to start from what fits, "
                "set {allow_mismatch} to True",
                problems=problems,
            )
        super()._log_incompatible_keys(incompatible)

    def _error(self, template: str, **values: object) -> ArgumentError:
        return ArgumentError("Checkpointer", template, path=self._path, **values)
