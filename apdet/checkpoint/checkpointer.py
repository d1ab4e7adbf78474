"""A checkpointer that runs no code, writes whole files, and checks that weights fit the model."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from apdet.checkpoint.card import CARD, ModelCard
from apdet.checkpoint.checkpoint_file import read_checkpoint
from apdet.checkpoint.class_fitting import Classes, fit_classes
from apdet.checkpoint.mismatch import check_fit, check_numbers
from apdet.checkpoint.run_folder import TAG, find_checkpoint, holds_run
from apdet.checkpoint.training_state import NO_STATE, load_training_state
from apdet.errors import ArgumentError
from apdet.files import check_regular_file, whole_file

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with safe loading, safe saving, and a check that weights fit.

    Args:
        model: the model whose weights are saved and loaded.
        save_dir: the folder of the checkpoints of a training.
        allow_mismatch: whether weights whose shape differs from the model's are left out with a
            warning. If not, they are an error.
        classes: the classes of the model, in order. They are saved with the weights, and the
            classes of loaded weights are matched to them by name, see :func:`fit_classes`.
        weights_classes: the classes of the weights that a training starts from, or which are
            evaluated. Empty: the classes that are saved with the weights, if any.
        card: what saved files say of the model; None: nothing.
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
        card: ModelCard | None = None,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.allow_mismatch = allow_mismatch
        self.classes, self.weights_classes = list(classes), list(weights_classes)
        self.card = card
        self._strict = self._resuming = False
        self._path = ""
        self._orders: dict[str, Tensor] = {}

    def load(
        self,
        path: str,
        checkpointables: list[str] | None = None,
        *,
        strict: bool = False,
        resuming: bool = False,
    ) -> dict[str, Any]:
        """Load weights, and the state of ``checkpointables``, from a file.

        Args:
            path: a checkpoint of apdet, or any file that Detectron2 reads, such as a model of its
                zoo. Empty: nothing is loaded.
            checkpointables: names of the other objects to load; None: all that are in the file.
            strict: whether the file must have exactly the weights of the model, and its classes.
            resuming: whether the file is a checkpoint of this training. ``weights_classes`` then
                does not describe it.

        Returns:
            The other content of the file.

        Raises:
            UserError: the file is missing, is broken, holds code, NaN or infinity, or does not fit
                the model.
        """
        self._strict, self._resuming, self._path = strict, resuming, path
        self._orders = {}
        if path and "://" not in path and not os.path.isfile(path):
            if os.path.exists(path):
                check_regular_file(path)  # says what it is
            raise self._error(
                "{path}: no such checkpoint; see {weights} and {save_dir} "
                "(`apdet convert` makes a checkpoint of ImageNet weights)"
            )
        content = self._load_url() if "://" in path else self._load_local()
        for name in self.checkpointables if checkpointables is None else checkpointables:
            if name in content:
                with self._naming_file():
                    target, state = self.checkpointables[name], content.pop(name)
                    load_training_state(
                        target, state, name=name, model=self.model, orders=self._orders
                    )
            elif resuming:
                logger.warning(NO_STATE, path, name)
        return content

    def _load_local(self) -> dict[str, Any]:
        # Detectron2 would take a question mark in a path for the start of a query.
        return super(DetectionCheckpointer, self).load(self._path, checkpointables=[])

    def _load_url(self) -> dict[str, Any]:
        try:
            return super().load(self._path, checkpointables=[])
        except (AssertionError, OSError, RuntimeError) as error:
            raise self._error(
                "{path}: cannot be read: {error}. Download it by hand, and give the name of the "
                "file in {weights}",
                error=error,
            ) from error
        finally:
            self._parsed_url_during_load = None

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint in the folder if there is one, else load ``path``."""
        if resume and self.has_checkpoint():
            return self.load(self.get_checkpoint_file(), strict=True, resuming=True)
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
        self.load(last or weights, checkpointables=[], strict=True, resuming=bool(last))

    def has_checkpoint(self) -> bool:
        """Whether the folder holds a training: a checkpoint, or the name of one."""
        return bool(self.save_dir) and holds_run(self.save_dir)

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from; empty if the folder holds no training.

        Raises:
            UserError: the folder holds a training, but no whole checkpoint.
        """
        found = find_checkpoint(self.save_dir) if self.save_dir else None
        return "" if found is None else str(found)

    def save(
        self,
        name: str,
        *,
        to_resume: bool = True,
        card: ModelCard | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``name``.pth. If the process is interrupted, the previous file remains.

        Args:
            name: the name of the file, without its suffix.
            to_resume: whether this becomes the checkpoint to resume from.
            card: what the file says of the model; None: ``self.card``.
            kwargs: more content of the file.

        Raises:
            FloatingPointError: a weight is NaN or infinite. Nothing is written then.
            UserError: the file cannot be written.
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
        if card := card or self.card:
            data[CARD] = card.content()
        path = os.path.join(self.save_dir, f"{name}.pth")
        with whole_file(path) as file:
            torch.save({"model": state, **data, **kwargs}, file)
        logger.info("Saved %s", path)
        if to_resume:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make a file the checkpoint to resume from."""
        with whole_file(os.path.join(self.save_dir, TAG)) as file:
            file.write(last_filename_basename.encode())

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Detectron2 lets a URL ask for its heuristics for names.
        return read_checkpoint(filename, heuristics="?matching_heuristics=True" in self._path)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        names = list(checkpoint["model"])
        options = {"strict": self._strict, "allow_mismatch": self.allow_mismatch}
        with self._naming_file():
            check_numbers(checkpoint["model"], self.model)
            if self.classes:
                classes = Classes(self.classes, self.weights_classes)
                self._orders = fit_classes(
                    checkpoint, self.model, classes, resuming=self._resuming, **options
                )
            incompatible = super()._load_model(checkpoint)
            check_fit(names, incompatible, self.model, **options)
        return incompatible

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        """Let errors name the file that is loaded."""
        try:
            yield
        except ArgumentError as error:
            raise self._error("{path}: " + error.template, **error.values) from error
        except (AssertionError, RuntimeError, ValueError) as error:  # such as sparse tensors
            reason = " ".join(str(error).split())  # on one line
            raise self._error("{path}: cannot be loaded: {reason}", reason=reason) from error

    def _error(self, template: str, **values: object) -> ArgumentError:
        return ArgumentError("Checkpointer", template, path=self._path, **values)
