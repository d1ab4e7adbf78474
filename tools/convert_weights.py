#!/usr/bin/env python
"""Convert ImageNet weights to a checkpoint; the same as `apdet convert`."""

from apdet.cli import run_command

if __name__ == "__main__":
    run_command("convert")
