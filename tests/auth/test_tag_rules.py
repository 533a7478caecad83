"""GitLab's tag patterns: what they match, in which syntax, and that none is left out because it cannot be followed."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any, Final

import pytest
import re2  # pyright: ignore[reportMissingImports]
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth.tag_rules import (
    PATTERN_BYTES_MAX,
    PATTERN_CHARS_MAX,
    PATTERN_INSTRUCTIONS_MAX,
    PATTERNS_MAX,
    TagPatterns,
    parse_tag_rules,
)
from app.domain.errors import (
    RegistryError,
    TagImmutabilityPatternInvalid,
    TagPatternCountLimitExceeded,
    TagProtectionPatternInvalid,
)
from tests.support.effort import EFFORT

REFUSALS: Final = (
    TagImmutabilityPatternInvalid,
    TagPatternCountLimitExceeded,
    TagProtectionPatternInvalid,
)
LONGEST: Final = "x" * PATTERN_CHARS_MAX
PLACES: Final[dict[str, type[RegistryError]]] = {
    "push": TagProtectionPatternInvalid,
    "delete": TagProtectionPatternInvalid,
    "immutable": TagImmutabilityPatternInvalid,
}


def meta_of(place: str, patterns: Any) -> dict[str, Any]:
    if place == "immutable":
        return {"tag_immutable_patterns": patterns}
    return {"tag_deny_access_patterns": {place: patterns}}


def rules_of(meta: dict[str, Any]) -> TagPatterns:
    rules = parse_tag_rules(meta)
    assert rules is not None
    return rules


def matches(pattern: str, tag: str) -> bool:
    return rules_of({"tag_immutable_patterns": [pattern]}).is_immutable(tag)


def refusal_of(meta: dict[str, Any]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        parse_tag_rules(meta)
    return caught.value


def test_rules_when_of_all_kinds_then_each_answers_for_its_own_action() -> None:
    rules = rules_of(
        {
            "project_path": "group/project",
            "tag_deny_access_patterns": {"push": ["^latest$", "rc"], "delete": ["^v"]},
            "tag_immutable_patterns": ["^[0-9]+$"],
        }
    )
    answers = {
        tag: (rules.is_push_denied(tag), rules.is_delete_denied(tag), rules.is_immutable(tag))
        for tag in ("latest", "v1-rc2", "v1", "17", "main")
    }
    assert answers == {
        "latest": (True, False, False),
        "v1-rc2": (True, True, False),
        "v1": (False, True, False),
        "17": (False, False, True),
        "main": (False, False, False),
    }


@pytest.mark.parametrize(
    ("meta", "guards"),
    [
        ({"tag_deny_access_patterns": {"push": ["x"]}}, False),
        ({"tag_deny_access_patterns": {"delete": ["x"]}}, True),
        ({"tag_immutable_patterns": ["x"]}, True),
    ],
)
def test_manifests_when_some_tag_may_not_be_deleted_then_are_guarded(
    meta: dict[str, Any], guards: bool
) -> None:
    assert rules_of(meta).guards_manifests is guards


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"project_id": 7},
        {"tag_deny_access_patterns": None, "tag_immutable_patterns": None},
        {"tag_deny_access_patterns": {}, "tag_immutable_patterns": []},
        {"tag_deny_access_patterns": {"push": None, "delete": []}},
        {"tag_deny_access_patterns": {"pull": ["x"]}},
    ],
)
def test_rules_when_there_are_no_patterns_then_are_none(meta: dict[str, Any]) -> None:
    assert parse_tag_rules(meta) is None


# Syntax


@pytest.mark.parametrize(
    ("pattern", "tag", "expected"),
    [
        ("rel", "a-release-1", True),  # anywhere
        ("^rel", "a-release-1", False),
        (r"^v\d+\.\d+\z", "v1.20", True),  # RE2's end of the text, an error to Python
        ("(?i)^LATEST$", "latest", True),
        (r"\pL", "v1", True),  # Unicode classes, an error to Python
        (r"^[[:alpha:]]+$", "main", True),  # POSIX classes
        (r"^\Qv1.0\E$", "v1.0", True),
        (r"^\Qv1.0\E$", "v1x0", False),
        ("", "whatever", True),
        (LONGEST, "x" * 128, True),
        ("ü" * PATTERN_CHARS_MAX, "x", False),  # characters, not bytes
    ],
)
def test_pattern_when_searched_then_has_re2s_meaning(pattern: str, tag: str, expected: bool) -> None:
    assert matches(pattern, tag) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "[", "*", "a**", "(", "a{1001}", "(?P<n>a)(?P=n)",
        r"(a)\1",  # Python can, RE2 cannot
        "(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b", "(?>a)", "a++", r"a\Z",
        r"\pL{1000}",  # more memory than a pattern may take
        "\ud800",  # half a character, as JSON can spell it
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", PLACES)
def test_pattern_when_it_is_none_to_re2_then_is_refused_by_its_place_and_named(
    place: str, pattern: str
) -> None:
    refused = refusal_of(meta_of(place, ["fine", pattern]))
    assert type(refused) is PLACES[place]
    assert refused.status == 400
    assert place in refused.detail
    assert repr(pattern) in refused.detail
    assert json.dumps(refused.documents()).encode()


# The last of them are no Latin-1; two of those are spelt in capitals as `S` and `K` are.
PIECES: Final = [
    "a", "B", "-", ".", "\\.", "\\d", "\\w", "\\b", "[a-z]", "[^a]", "[^\\d.]", "[[:alpha:]]", "\\pL", "\\PL", "(?i)",
    "\\p{Greek}", "\\C", "\\z", "^", "$", "*", "+", "?", "{2,3}", "|", "(", ")", "(?:", "ü", "[ä-ü]", "[^é]", "\\xe9",
    "\u017f", "[ß-\u017f]", "\\x{17f}", "\\x{212a}", "\u212a", "\\Q.ü\\E",
]  # fmt: skip
TAGS: Final = ["a", "b", "ab", "aB1", "k", "K-s", "S", "v1.20", "_", "0.0", "a-b_c.d", "zzz"]


@settings(max_examples=300 * EFFORT, deadline=None)
@given(pattern=st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_pattern_when_searched_in_a_tag_then_answers_as_re2_does_without_our_options(pattern: str) -> None:
    engine: Any = re2
    options = engine.Options()
    options.log_errors = False
    try:
        plain = engine.compile(pattern, options)
    except engine.error:
        with pytest.raises(TagImmutabilityPatternInvalid):
            parse_tag_rules({"tag_immutable_patterns": [pattern]})
        return
    try:
        rules = rules_of({"tag_immutable_patterns": [pattern]})
    except TagImmutabilityPatternInvalid:
        # In UTF-8, which takes only what is no Latin-1, the letters of all scripts are too large a pattern.
        assert "\\p" in pattern.lower()
        assert "\\x{" in pattern or max(pattern) > "ÿ"
        return
    for tag in TAGS:
        assert rules.is_immutable(tag) is (plain.search(tag) is not None), (pattern, tag)


@pytest.mark.parametrize(
    "pattern",
    [
        ".{1,128}", ".{0,127}-rc", r"^\pL{1,100}$", r"^[a-z0-9._-]{1,128}$",
        r"(?i)^(release|hotfix)-[a-z0-9_.-]{1,100}$",
        r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[\w.-]{1,64})?(\+[\w.-]{1,40})?$",
    ],
)  # fmt: skip
def test_pattern_when_it_counts_to_the_length_of_a_tag_then_is_taken(pattern: str) -> None:
    assert parse_tag_rules({"tag_immutable_patterns": [pattern]}) is not None


GREEDY: Final = [
    "(?:[a-b]?){999}", "(?:a?){999}", "(.{1,30}){33}", "(((.*){10}){10}){10}", "([ab]*){999}", r"(\w?){999}",
    "(?i:[a-b]?){998}", "((a?){31}){31}", "(\\p{Greek}|\u017f?){500}", "(?:\u017f|a?){999}", "a{0,999}",
]  # fmt: skip


@pytest.mark.parametrize(
    "pattern", [unit * n for unit in GREEDY for n in (1, PATTERN_CHARS_MAX // len(unit))]
)
def test_pattern_when_it_repeats_without_measure_then_is_refused_for_what_it_would_take(pattern: str) -> None:
    """Each would take tens of milliseconds for one tag, five of them seconds for a push of 64."""
    refused = refusal_of({"tag_deny_access_patterns": {"push": [pattern]}})
    assert type(refused) is TagProtectionPatternInvalid
    assert "repeats too much" in refused.detail or "too large" in refused.detail


@settings(max_examples=100 * EFFORT, deadline=None)
@given(
    unit=st.sampled_from([*GREEDY, "(a?b?){N}", "(.?){N}", "([^c]*){N}", "(a|b|){N}"]),
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=4),
)
def test_pattern_when_it_is_taken_then_takes_few_instructions(unit: str, counts: list[int]) -> None:
    pattern = "".join(unit.replace("999", "N").replace("N", str(n)) for n in counts)[:PATTERN_CHARS_MAX]
    try:
        rules = rules_of({"tag_immutable_patterns": [pattern]})
    except TagImmutabilityPatternInvalid:
        return
    (compiled,) = rules.immutable
    assert compiled.programsize <= PATTERN_INSTRUCTIONS_MAX
    assert compiled.options.max_mem == PATTERN_BYTES_MAX


def test_pattern_when_made_to_explode_then_is_searched_in_linear_time() -> None:
    """Python's engine needs 2**127 steps for it."""
    began = perf_counter()
    assert not matches("^(a+)+$", "a" * 127 + "b")
    assert matches("(a+)+$", "b" + "a" * 127)
    assert not matches("(x+x+)+y", "x" * 128)
    assert perf_counter() - began < 5


# Limits


@pytest.mark.parametrize("place", PLACES)
def test_pattern_when_one_character_too_long_then_is_refused(place: str) -> None:
    assert parse_tag_rules(meta_of(place, [LONGEST])) is not None
    refused = refusal_of(meta_of(place, [LONGEST + "y"]))
    assert type(refused) is PLACES[place]
    assert f"has {PATTERN_CHARS_MAX + 1} characters" in refused.detail


@pytest.mark.parametrize(
    ("push", "delete", "immutable", "allowed"),
    [
        (PATTERNS_MAX, PATTERNS_MAX, 0, True),  # five rules, each against both
        (0, 0, PATTERNS_MAX, True),
        (3, 2, 2, True),
        (PATTERNS_MAX + 1, 0, 0, False),
        (0, PATTERNS_MAX + 1, 0, False),
        (0, 0, PATTERNS_MAX + 1, False),
        (1, 0, PATTERNS_MAX, False),
        (0, 3, 3, False),
    ],
)
def test_patterns_when_more_than_five_hold_for_an_action_then_are_refused(
    push: int, delete: int, immutable: int, allowed: bool
) -> None:
    meta = {
        "tag_deny_access_patterns": {"push": ["p"] * push, "delete": ["d"] * delete},
        "tag_immutable_patterns": ["i"] * immutable,
    }
    if allowed:
        assert rules_of(meta).guards_manifests
    else:
        assert type(refusal_of(meta)) is TagPatternCountLimitExceeded


# Shapes


@pytest.mark.parametrize(
    "wrong", ["v.*", 1, 1.5, True, False, {}, {"push": []}, ["v", 1], ["v", None], [["v"]]]
)
@pytest.mark.parametrize("place", PLACES)
def test_patterns_when_not_a_list_of_strings_then_are_refused(place: str, wrong: Any) -> None:
    refused = refusal_of(meta_of(place, wrong))
    assert type(refused) is PLACES[place]
    assert place in refused.detail


@pytest.mark.parametrize("wrong", ["v.*", 1, True, [], ["v.*"]])
def test_protection_when_not_an_object_then_is_refused(wrong: Any) -> None:
    assert type(refusal_of({"tag_deny_access_patterns": wrong})) is TagProtectionPatternInvalid


bits: Final = st.sampled_from(
    ["a", "(", ")", "[", "]", "*", "+", "{2,9}", "?", "\\", "^", "$", "|", "\\pL", "\ud800"]
)
patterns: Final = st.lists(bits, max_size=12).map("".join) | st.text(max_size=PATTERN_CHARS_MAX + 5)
leaves: Final = st.none() | st.booleans() | st.integers() | st.floats() | patterns
anything: Final = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
listed: Final = st.lists(patterns, max_size=PATTERNS_MAX + 1) | anything
metas: Final = st.fixed_dictionaries(
    {},
    optional={
        "tag_deny_access_patterns": st.fixed_dictionaries({}, optional={"push": listed, "delete": listed})
        | anything,
        "tag_immutable_patterns": listed,
        "project_path": anything,
    },
)


@settings(max_examples=200 * EFFORT, deadline=None)
@given(meta=metas)
def test_meta_when_of_any_shape_then_gives_rules_or_none_or_one_of_three_refusals(
    meta: dict[str, Any],
) -> None:
    try:
        rules = parse_tag_rules(meta)
    except REFUSALS as refused:
        answer = json.dumps(refused.documents())
    else:
        answer = rules and (
            rules.is_push_denied("v1"),
            rules.is_delete_denied("v1"),
            rules.is_immutable("v1"),
        )
    assert answer is None or len(answer) >= 3
