"""Writes the data set: ``python -m apdet.data.digits --out datasets/digits``."""

from apdet.data.digits.command import main

main(prog="python -m apdet.data.digits")
