"""Makes the names of apdet 0.1 work, with a DeprecationWarning.

`install` serves modules under their former paths, and `renamed` serves former names in a module.
Both import the new module only when a former name is used.
"""

from apdet.compat.moved_modules import install
from apdet.compat.renamed import renamed

__all__ = ["install", "renamed"]
