"""Registers a data set for a short time, because Detectron2 takes only names of data sets."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


@contextmanager
def temporary_data_set(
    name: str, load: Callable[[], list[dict[str, Any]]], metadata: Mapping[str, Any]
) -> Iterator[None]:
    """In this context, a data set is in Detectron2's catalogs.

    Args:
        name: a name that is not registered.
        load: loads the dataset dicts.
        metadata: the metadata, without the name.
    """
    DatasetCatalog.register(name, load)
    try:
        MetadataCatalog.get(name).set(**metadata)
        yield
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
