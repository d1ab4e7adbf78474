#!/usr/bin/env python
"""Train, evaluate or check the detector of a config file; the same as `apdet train`."""

from apdet.cli import run_command

if __name__ == "__main__":
    run_command("train", prog="python tools/train_net.py")
