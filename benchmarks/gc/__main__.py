"""`python -m benchmarks.gc`."""

from __future__ import annotations

import sys

from benchmarks.gc.cli import main

if __name__ == "__main__":
    sys.exit(main())
