"""Storage keys."""

from __future__ import annotations

import pytest

from app.blobs.keys import HEALTH_PREFIX, check_key, is_key, new_health_key, new_key


def test_new_key_when_many_are_made_then_each_is_new_and_well_formed() -> None:
    keys = {new_key() for _ in range(2000)}
    assert len(keys) == 2000
    assert all(is_key(key) for key in keys)
    assert len({key.split("/")[1] for key in keys}) > 200
    for key in keys:
        check_key(key)


def test_new_health_key_when_it_is_made_then_it_is_of_no_upload() -> None:
    assert new_health_key().startswith(HEALTH_PREFIX)
    assert not is_key(new_health_key())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "health/" + "ab" * 16,
        "objects/ab/" + "cd" * 16,
        "objects/ab/ab" + "0" * 29,
        "objects/ab/ab" + "0" * 31,
        "objects/AB/AB" + "0" * 30,
        "objects/ab/ab" + "0" * 30 + "\n",
        "/objects/ab/ab" + "0" * 30,
        "docker/registry/v2/blobs/sha256/ab/" + "ab" * 32 + "/data",
    ],
)
def test_is_key_when_it_is_of_another_form_then_it_is_none(text: str) -> None:
    assert not is_key(text)
