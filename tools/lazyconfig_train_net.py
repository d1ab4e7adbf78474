#!/usr/bin/env python
"""Train, evaluate or check the detector of a Python config; the same as `apdet train`."""

from apdet.cli import run_command

if __name__ == "__main__":
    run_command("train", prog="python tools/lazyconfig_train_net.py", suffix=".py")
