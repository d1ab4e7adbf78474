"""Data sets, the mapper and its augmentation, training batches, and the `digits` data set."""
