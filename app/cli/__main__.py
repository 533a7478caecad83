"""`python -m app.cli`: the command `registry`, where it is not installed."""

from __future__ import annotations

import sys

from app.cli import main

sys.exit(main())
