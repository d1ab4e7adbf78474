#!/usr/bin/env python
"""Compare losses; the same as `apdet compare`."""

from apdet.cli import run_command

if __name__ == "__main__":
    run_command("compare")
