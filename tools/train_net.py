#!/usr/bin/env python
"""Train, evaluate or check the detector of a config file; the same as `apdet train`."""

from apdet.cli.train import main

if __name__ == "__main__":
    main(prog="python tools/train_net.py")
