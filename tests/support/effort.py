"""How hard the searching tests try: 1 in `make test`, more in `make test-all` (the environment's TEST_EFFORT).

It multiplies examples, seconds and repetitions; it never decides whether something is checked at all.
"""

from __future__ import annotations

import os
from typing import Final

EFFORT: Final = max(1, int(os.environ.get("TEST_EFFORT", "1")))
