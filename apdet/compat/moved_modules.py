"""Serves modules under the paths that they had in apdet 0.1."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# {path in 0.1: present path}.
MOVED = {
    "apdet.class_transfer": "apdet.checkpoint.class_transfer",
    "apdet.convert": "apdet.checkpoint.convert",
    "apdet.weights_file": "apdet.checkpoint.weights_file",
    "apdet.lazy_config": "apdet.config.lazy",
    "apdet.dry_run": "apdet.engine.dry_run",
    "apdet.hooks": "apdet.engine.hooks",
    "apdet.mixed_precision": "apdet.engine.mixed_precision",
    "apdet.seeding": "apdet.engine.seeding",
    "apdet.evaluation.curves": "apdet.report.curves",
    "apdet.evaluation.pictures": "apdet.report.pictures",
    "apdet.evaluation.report": "apdet.report.write",
    "apdet.evaluation.tile": "apdet.report.tile",
    "apdet.losses.binning": "apdet.losses.ranking.binning.search",
    "apdet.losses.compiled": "apdet.losses.ranking.binning.compiled",
    "apdet.losses.distributed": "apdet.losses.ranking.distributed",
    "apdet.losses.error_driven": "apdet.losses.ranking.error_driven",
    "apdet.losses.grid": "apdet.losses.ranking.binning.grid",
    "apdet.losses.native": "apdet.losses.ranking.binning.numba_backend",
    "apdet.losses.native_kernels": "apdet.losses.ranking.binning.numba_kernels",
    "apdet.losses.nonzero": "apdet.losses.ranking.nonzero",
    "apdet.losses.rank_sums": "apdet.losses.ranking.rank_sums",
    "apdet.losses.routes": "apdet.losses.ranking.binning.backends",
    "apdet.losses.steps": "apdet.losses.ranking.steps",
    "apdet.modeling.test_time_augmentation": "apdet.modeling.tta",
    "apdet.modeling.vgg": "apdet.modeling.backbones.vgg",
}
# {module of 0.1 that has no successor: what to use instead}.
REMOVED = {
    "apdet.lazy_engine": "apdet.engine trains what YAML and Python configs describe",
}


def install() -> None:
    """Make the former paths importable."""
    sys.meta_path.append(_Finder())  # last, so that modules that exist are found first


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in REMOVED:
            message = f"{fullname} of apdet 0.1 is gone: {REMOVED[fullname]}"
            raise ModuleNotFoundError(message, name=fullname)
        return ModuleSpec(fullname, _Alias()) if fullname in MOVED else None


class _Alias(Loader):
    """Loads the present module for a former path: the same object, not a copy."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        # Python skips its own frames of an import, so level 2 is the line with the import.
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import has replaced it by the spec of the former path
