#!/usr/bin/env python
"""Detect objects in images with a trained model; the same as `apdet predict`."""

from apdet.cli import run_command

if __name__ == "__main__":
    run_command("predict", prog="python tools/predict.py")
