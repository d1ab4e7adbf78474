"""The hook that ends a training whose output folder was removed."""

import errno
import os
import weakref

from detectron2.engine import HookBase

from apdet.engine.output_folder import LOCK
from apdet.files import storage_error


class FolderGuard(HookBase):
    """Raises an error if the output folder was removed, even if something made it anew.

    An evaluation makes the folder anew, and the training would go on without its checkpoints. So
    one such hook comes before the evaluations, and one after them. A command that removes the
    folder file by file may fail in the end, since the training writes a file meanwhile. So the lock
    must stay, too, if it is there when the training begins.
    """

    def __init__(self, folder: str):
        """Set up the hook.

        Args:
            folder: the output folder, which exists when the training begins.
        """
        self.folder = folder

    def before_train(self) -> None:
        paths = [self.folder, os.path.join(self.folder, LOCK)]
        # As long as they are open, nothing new is mistaken for them.
        self._descriptors = {p: os.open(p, os.O_RDONLY) for p in paths if os.path.exists(p)}
        for descriptor in self._descriptors.values():
            weakref.finalize(self, os.close, descriptor)

    def after_step(self) -> None:
        self.check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # else another error ended the training
            self.check()

    def check(self) -> None:
        """Check that the folder is there. A UserError if it is not."""
        for path, descriptor in self._descriptors.items():
            if not _is_at(path, descriptor):
                part = "" if path == self.folder else f" in part: {os.path.basename(path)} is gone"
                raise storage_error(OSError(errno.ENOENT, f"it was removed{part}"), self.folder)


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file or folder is still the one at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
