"""What a verified token's claims allow, and whom they name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth.claims import PROJECTS_MAX, SUBJECT_CHARS_MAX, Grants, grants_of
from app.auth.compact import TokenRefused
from app.domain.access import Action
from app.domain.errors import TagPatternCountLimitExceeded, TagProtectionPatternInvalid
from tests.auth.tokens import access, claims
from tests.support.effort import EFFORT

IN_REPOSITORIES = (Action.PULL, Action.PUSH, Action.DELETE)


def grants(*entries: Any, **others: Any) -> Grants:
    return grants_of(claims(access=[*entries], **others))


def allowed(found: Grants, repository: str | None = "team/app") -> set[str]:
    return {action.value for action in Action if found.may(action, repository)}


def test_may_when_entries_are_of_one_repository_then_their_actions_add_up() -> None:
    found = grants(access("team/app", "pull"), access("team/app", "delete"), access("team/other", "push"))
    assert allowed(found) == {"pull", "delete"}
    assert allowed(found, "team/other") == {"push"}


def test_may_when_the_action_is_a_star_then_anything_goes_in_that_repository_alone() -> None:
    found = grants(access("team/app", "*"))
    assert allowed(found) == {"pull", "push", "delete"}
    assert allowed(found, None) == set()
    assert allowed(found, "team/app2") == set()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "team/*",
            "*",
            "team",
            "team/",
            "team/app/",
            "/team/app",
            "team//app",
            "Team/App",
            "team/../team/app",
        ),
        *(
            "team/app:pull",
            "team/app@sha256",
            "team%2Fapp",
            "team/app ",
            "team/app\n",
            "TEAM/APP",
            "team\u2215app",
            "",
        ),
    ],
)
def test_may_when_the_name_is_not_the_very_same_then_nothing_is_allowed(name: str) -> None:
    assert allowed(grants(access(name, "*", "pull", "push"))) == set()


@pytest.mark.parametrize(
    "actions", [[], ["PULL"], ["pull,push"], ["pull "], [""], ["**"], ["all"], ["admin"]]
)
def test_may_when_the_actions_are_others_then_nothing_is_allowed(actions: list[str]) -> None:
    assert allowed(grants(access("team/app", *actions))) == set()


@pytest.mark.parametrize("kind", ["registry", "Repository", "repository(plugin)", "", "*"])
def test_may_when_the_type_is_another_then_nothing_is_allowed(kind: str) -> None:
    assert allowed(grants(access("team/app", "*", type=kind))) == set()


@pytest.mark.parametrize(
    ("entry", "is_allowed"),
    [
        (access("catalog", "*", type="registry"), True),
        (access("catalog", "pull", "catalog", type="registry"), False),
        (access("*", "*", type="registry"), False),
        (access("Catalog", "*", type="registry"), False),
        (access("catalog", "*"), False),
    ],
)
def test_may_when_the_catalog_is_asked_for_then_registry_catalog_star_alone_allows_it(
    entry: Any, is_allowed: bool
) -> None:
    found = grants(entry)
    assert found.may(Action.CATALOG, None) is is_allowed
    assert not found.may(Action.CATALOG, "catalog")
    assert not any(found.may(action, None) for action in IN_REPOSITORIES)


@pytest.mark.parametrize("body", [{"access": ...}, {"access": None}, {"access": []}])
def test_grants_of_when_there_is_no_access_then_nothing_is_allowed(body: dict[str, Any]) -> None:
    found = grants_of(claims(**body))
    assert allowed(found) | allowed(found, None) == set()


@pytest.mark.parametrize(
    "more", [{"class": "image"}, {"class": None}, {"meta": None}, {"meta": {}}, {"new": 1}]
)
def test_grants_of_when_an_entry_has_more_than_it_needs_then_it_is_understood(more: dict[str, Any]) -> None:
    assert allowed(grants(access("team/app", "pull", **more))) == {"pull"}


@pytest.mark.parametrize(
    "entry",
    [
        *(None, 7, "repository:team/app:pull", [], ["repository", "team/app", ["pull"]], {}),
        {"type": "repository", "actions": ["pull"]},
        {"name": "team/app", "actions": ["pull"]},
        *({"type": kind, "name": "a", "actions": []} for kind in (None, 7, ["repository"], {})),
        *({"type": "repository", "name": name, "actions": []} for name in (None, 7, ["a"], {})),
        *(
            {"type": "repository", "name": "a", "actions": actions}
            for actions in ("pull", {"pull": 1}, 7, True)
        ),
        *(
            {"type": "repository", "name": "a", "actions": [action]}
            for action in (None, 7, ["pull"], {}, True)
        ),
        *({"type": "repository", "name": "a", "class": one, "actions": []} for one in (7, [], {})),
        *({"type": "repository", "name": "a", "meta": meta, "actions": []} for meta in (7, [], "meta", True)),
    ],
)
def test_grants_of_when_an_entry_is_malformed_then_the_token_is_refused_as_a_whole(entry: Any) -> None:
    with pytest.raises(TokenRefused) as refused:
        grants(access("team/app", "pull"), entry)
    assert refused.value.kind == "malformed"


def test_subject_when_the_token_is_gitlabs_then_it_has_kind_user_and_projects() -> None:
    subject = grants(
        access("team/app", "pull", meta={"project_path": "team/app", "project_id": 7}),
        access("team/app/cache", "pull", meta={"project_path": "team/app"}),
        access("other/app", "pull", meta={"project_path": "other/app"}),
        access("more", "pull", meta={"project_path": 7}),
        auth_type="build",
        user="nested.jwt.canary",
    ).subject
    assert (subject.name, subject.kind, subject.user) == ("alice", "build", "nested.jwt.canary")
    assert subject.projects == ("team/app", "other/app")


@pytest.mark.parametrize("sub", [..., None, ""])
def test_subject_when_nobody_is_named_then_it_is_anonymous(sub: Any) -> None:
    assert grants_of(claims(sub=sub)).subject.name == ""


@pytest.mark.parametrize(
    "sub", [7, [], {}, True, "x" * (SUBJECT_CHARS_MAX + 1), "a\nb", "\x00", "\x1b[2J", "\x9b"]
)
def test_subject_when_the_name_is_none_then_the_token_is_refused(sub: Any) -> None:
    with pytest.raises(TokenRefused, match="`sub`"):
        grants_of(claims(sub=sub))


def test_subject_when_others_use_gitlabs_claims_for_something_else_then_they_are_left_alone() -> None:
    subject = grants_of(claims(user={"id": 7}, auth_type=["pwd"])).subject
    assert (subject.user, subject.kind) == ("", "")


def test_subject_when_there_are_very_many_or_long_projects_then_few_are_kept() -> None:
    many = [access(f"r{n}", "pull", meta={"project_path": f"p{n}"}) for n in range(PROJECTS_MAX * 2)]
    found = grants(access("long", "pull", meta={"project_path": "p" * 5000}), *many)
    assert len(found.subject.projects) == PROJECTS_MAX
    assert found.subject.projects[0] == "p0"


def denying(push: list[str], delete: list[str] = [], immutable: list[str] = []) -> dict[str, Any]:  # noqa: B006
    return {
        "tag_deny_access_patterns": {"push": push, "delete": delete},
        "tag_immutable_patterns": immutable,
    }


def test_tag_rules_when_the_entry_has_none_then_there_are_none() -> None:
    found = grants(
        access("team/app", "push", meta={"project_path": "team/app"}), access("team/other", "push")
    )
    assert found.tag_rules("team/app") is None
    assert found.tag_rules("team/other") is None
    assert found.tag_rules("unknown") is None


def test_tag_rules_when_asked_for_twice_then_they_are_read_once() -> None:
    found = grants(access("team/app", "push", meta=denying(["^v"])))
    rules = found.tag_rules("team/app")
    assert rules is not None
    assert (rules.is_push_denied("v1"), rules.is_push_denied("main")) == (True, False)
    assert found.tag_rules("team/app") is rules


def test_tag_rules_when_entries_of_one_repository_differ_then_what_one_forbids_is_forbidden() -> None:
    found = grants(
        access("team/app", "pull"),
        access("team/app", "push", meta=denying(["^v"])),
        access("team/app", "push", meta=denying(["^v"])),
        access("team/app", "delete", meta=denying([], ["^keep"], ["^fixed"])),
    )
    rules = found.tag_rules("team/app")
    assert rules is not None
    assert [rules.is_push_denied(tag) for tag in ("v1", "keep", "other")] == [True, False, False]
    assert [rules.is_delete_denied(tag) for tag in ("v1", "keep", "other")] == [False, True, False]
    assert [rules.is_immutable(tag) for tag in ("v1", "fixed")] == [False, True]
    assert rules.guards_manifests


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        (denying(["("]), TagProtectionPatternInvalid),
        (denying(["a"] * 6), TagPatternCountLimitExceeded),
        ({"tag_deny_access_patterns": "v"}, TagProtectionPatternInvalid),
    ],
)
def test_tag_rules_when_they_cannot_be_followed_then_the_token_still_pulls_and_each_look_fails(
    meta: dict[str, Any], error: type[Exception]
) -> None:
    found = grants(access("team/app", "pull", meta=meta))
    assert found.may(Action.PULL, "team/app")
    for _ in range(2):
        with pytest.raises(error):
            found.tag_rules("team/app")


def test_tag_rules_when_a_later_entry_repeats_the_name_as_another_type_then_its_meta_is_no_rule() -> None:
    found = grants(
        access("team/app", "push"), access("team/app", "push", type="registry", meta=denying(["v"]))
    )
    assert found.tag_rules("team/app") is None


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["repository", "registry"]) | ANY_JSON,
        "name": st.sampled_from(["team/app", "catalog"]) | ANY_JSON,
        "actions": st.lists(st.sampled_from(["pull", "push", "*"]) | ANY_JSON, max_size=2) | ANY_JSON,
        "class": ANY_JSON,
        "meta": ANY_JSON,
    },
)


@settings(max_examples=100 * EFFORT, deadline=None)
@given(st.lists(ENTRY | ANY_JSON, max_size=3) | ANY_JSON, ANY_JSON)
def test_grants_of_when_claims_are_anything_then_they_are_understood_or_refused(
    access: Any, sub: Any
) -> None:
    try:
        found = grants_of({"access": access, "sub": sub})
    except TokenRefused:
        return
    for action in allowed(found):
        assert any(
            entry.get("name") == "team/app"
            and entry.get("type") == "repository"
            and {action, "*"} & {*entry["actions"]}
            for entry in access
        )
