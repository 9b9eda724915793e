"""python-consul2, without the library that its own transport asks with.

Its package imports requests, which takes 6 MB and a tenth of a second, for a class that is not used here: `transport`
has its own. So an empty module stands in for it while python-consul2 is imported, unless it is there already.
"""

import sys
from types import ModuleType
from typing import Final

REQUESTS: Final = "requests"

_empty = ModuleType(REQUESTS)
sys.modules.setdefault(REQUESTS, _empty)
try:
    from consul import base
finally:
    if sys.modules[REQUESTS] is _empty:
        del sys.modules[REQUESTS]

__all__ = ["base"]
