"""A pytest plugin: what a test does to this process's logging does not last."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from app.runtime.logs import ACCESS_LOGGER
from app.runtime.request_ids import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "alembic", ACCESS_LOGGER)]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    # Another test of this process may have begun a request outside of any task.
    token = REQUEST_ID.set("")
    yield
    REQUEST_ID.reset(token)
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
