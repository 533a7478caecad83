"""The configuration: Distribution's and the GitLab registry's YAML file and `REGISTRY_*` variables, one tree.

`load` is the only way in. Settings are read where things are built; everything else gets values.
"""

from __future__ import annotations

from app.config.load import Loaded, load
from app.config.model import Settings
from app.config.problems import ConfigError
from app.config.values import Address, Duration, compile_pattern

__all__ = ["Address", "ConfigError", "Duration", "Loaded", "Settings", "compile_pattern", "load"]
