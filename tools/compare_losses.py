#!/usr/bin/env python
"""Compare losses; the same as `apdet compare`."""

from apdet.cli.compare import main

if __name__ == "__main__":
    main()
