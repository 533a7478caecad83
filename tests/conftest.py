"""What every test may use: see the plugins' own words."""

from __future__ import annotations

pytest_plugins = ["tests.support.needs", "tests.support.postgres"]
