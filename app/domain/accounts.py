"""Accounts of the built-in token service. For names the database has the same rule (`db/schema/15_accounts.sql`)."""

from __future__ import annotations

import re
from typing import Final

# Where something is granted it stands for everybody, so no account can have this name.
ANONYMOUS: Final = "anonymous"
ACCOUNT_NAME_CHARS_MAX: Final = 128
# A registry that is open until the first account notices it within this time.
FIRST_ACCOUNT_SECONDS: Final = 1.0

_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._@+-]{{0,{ACCOUNT_NAME_CHARS_MAX - 1}}}")


class AccountNameInvalid(ValueError):
    """What is wrong with a name, in one sentence."""


def parse_account_name(text: str) -> str:
    """The name. Raises AccountNameInvalid."""
    if text == ANONYMOUS:
        raise AccountNameInvalid(f"{ANONYMOUS} stands for everybody, so no account can have this name")
    if _NAME.fullmatch(text) is None:
        raise AccountNameInvalid(
            f"{text[: ACCOUNT_NAME_CHARS_MAX + 32]!r}: expected a lower-case letter or digit, then at most"
            f" {ACCOUNT_NAME_CHARS_MAX - 1} of lower-case letters, digits, '.', '_', '@', '+' and '-'"
        )
    return text
