#!/usr/bin/env python
"""Convert ImageNet weights to a checkpoint; the same as `apdet convert`."""

from apdet.cli.convert import main

if __name__ == "__main__":
    main()
