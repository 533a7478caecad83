"""What every test may use: see the plugins' own words.

Nothing that hypothesis tries is given a time: how long an example takes is the machine's business.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.needs", "tests.support.postgres", "tests.support.loggers"]


def pytest_configure() -> None:
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
    # A shell starts what runs in the background deaf to it, and so would be every command that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
