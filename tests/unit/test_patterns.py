"""Patterns of repository names: what they match, and what is refused as none."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.patterns import PathPattern, PatternInvalid

MATCHES = {
    "team-a/app": ["team-a/app"],
    "team-a/*": ["team-a/app", "team-a/b.c"],
    "team-a/**": ["team-a/app", "team-a/app/x", "team-a/a/b/c"],
    "**": ["a", "a/b", "a/b/c"],
    "*": ["a", "team-a"],
    "**/cache": ["cache", "a/cache", "a/b/cache"],
    "a/**/z": ["a/z", "a/b/z", "a/b/c/z"],
    "a/*/z": ["a/b/z"],
    "team-*/app-*": ["team-a/app-1", "team-b/app-x.y"],
    "*-cache": ["a-cache", "a-b-cache"],
    "a*b*c": ["abc", "a1b2c", "abbcbc"],
}
MISSES = {
    "team-a/app": ["team-a/app/x", "team-a", "team-b/app", "team-a/apps"],
    "team-a/*": ["team-a", "team-a/app/x", "team-ab/app"],
    "team-a/**": ["team-a", "team-ab/app", "x/team-a/app"],
    "*": ["a/b"],
    "**/cache": ["cache/a", "acache"],
    "a/**/z": ["a", "z", "a/zz", "b/a/z"],
    "a/*/z": ["a/z", "a/b/c/z"],
    "a*b*c": ["ab", "acb", "abcd"],
}


@pytest.mark.parametrize(("pattern", "names"), MATCHES.items())
def test_pattern_when_a_name_is_like_it_then_matches(pattern: str, names: list[str]) -> None:
    parsed = PathPattern.parse(pattern)
    assert [name for name in names if not parsed.matches(name)] == []
    assert str(parsed) == pattern


@pytest.mark.parametrize(("pattern", "names"), MISSES.items())
def test_pattern_when_a_name_is_not_like_it_then_does_not_match(pattern: str, names: list[str]) -> None:
    parsed = PathPattern.parse(pattern)
    assert [name for name in names if parsed.matches(name)] == []


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a//b", "A/b", "a/***", "a**", "**a", "a/..", "a/./b", "a b", "a:b", "a[bc]", "a?", "ä/*",
     "a/-*", "*_", "a\n", "a/**\n", "a" * 256, "a\0", "_*", "a/*-"],
)  # fmt: skip
def test_pattern_when_no_name_can_match_it_then_is_refused(text: str) -> None:
    with pytest.raises(PatternInvalid, match="pattern"):
        PathPattern.parse(text)


parts = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "**", "a*a"])
names = st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "aba"]), min_size=1, max_size=5).map("/".join)


@given(st.lists(parts, min_size=1, max_size=5).map("/".join), names)
def test_pattern_when_any_then_matches_what_a_regular_expression_would(pattern: str, name: str) -> None:
    expression = "".join(
        {"**": "(?:[^/]+/)*", "*": "[^/]+/"}.get(part, part.replace("*", "[^/]*") + "/")
        for part in pattern.split("/")
    )
    if pattern.endswith("/**"):
        expression = expression.removesuffix("(?:[^/]+/)*") + "(?:[^/]+/)+"
    assert PathPattern.parse(pattern).matches(name) == bool(re.fullmatch(expression, name + "/"))


def test_pattern_when_made_to_be_slow_then_is_not() -> None:
    pattern = PathPattern.parse("*".join("a" * 60))
    deep = PathPattern.parse("/".join(["**", "a"] * 30))
    began = time.process_time()
    assert not pattern.matches("a" * 250 + "b")
    assert not deep.matches("a/" * 100 + "b")
    assert time.process_time() - began < 1.0
