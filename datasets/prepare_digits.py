#!/usr/bin/env python
"""Write the data set of the quick start, e.g. prepare_digits.py --out datasets/digits."""

from apdet.data.digits import main

if __name__ == "__main__":
    main()
