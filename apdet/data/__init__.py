"""Data sets, the training mapper and its augmentation, and the embedded data set of digits."""
