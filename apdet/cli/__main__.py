"""Runs `apdet` as `python -m apdet.cli`, for when the command is not on the path."""

from apdet.cli import main

if __name__ == "__main__":
    main()
