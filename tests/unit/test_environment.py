"""`REGISTRY_*` variables: Distribution's rules, one by one."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.config import ConfigError, Loaded, Settings, load
from app.config.section import keys

if TYPE_CHECKING:
    from pathlib import Path

BASE: dict[str, object] = {
    "http": {"addr": ":5000"},
    "storage": {"filesystem": {"rootdirectory": "/srv/registry"}, "delete": {"enabled": True}},
    "database": {"host": "db"},
}


def loaded(environ: dict[str, str], **sections: Any) -> Loaded:
    return load(None, environ, base={**BASE, **sections})


def problems(environ: dict[str, str], **sections: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(environ, **sections)
    return caught.value.problems


def test_variable_when_it_names_a_key_then_takes_its_place() -> None:
    result = loaded(
        {"REGISTRY_HTTP_ADDR": "127.0.0.1:5055", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/x"}
    )

    assert result.settings.http.addr == "127.0.0.1:5055"
    assert result.settings.storage.parameters["rootdirectory"] == "/x"
    assert result.settings.storage.delete.enabled
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("REGISTRY_STORAGE_DELETE_ENABLED", "false", "storage.delete.enabled", False),
        ("REGISTRY_CATALOG_MAXENTRIES", "10", "catalog.maxentries", 10),
        ("REGISTRY_HTTP_DRAINTIMEOUT", "1m30s", "http.draintimeout.seconds", 90.0),
        ("REGISTRY_HTTP_TLS", "{certificate: /c, key: /k}", "http.tls.certificate", "/c"),
        ("REGISTRY_POLICY_REPOSITORY_CLASSES", "[a, b]", "policy.repository.classes", ("a", "b")),
        ("REGISTRY_DATABASE_PASSWORD", "0123", "database.password", SecretStr("0123")),
        ("REGISTRY_DATABASE_PASSWORD", "'a: b'", "database.password", SecretStr("a: b")),
        ("REGISTRY_DATABASE_ENABLED", "prefer", "database.enabled", "prefer"),
        ("REGISTRY_HTTP", "{addr: ':1'}", "http.addr", ":1"),
        ("REGISTRY_HTTP", "{addr: ':1'}", "http.relativeurls", False),
    ],
)
def test_value_when_it_is_yaml_then_is_read_as_such(name: str, text: str, path: str, value: object) -> None:
    settings = loaded({name: text}, http={"addr": ":5000", "relativeurls": True}).settings

    assert attrgetter(path)(settings) == value


def test_value_when_empty_then_takes_the_key_away() -> None:
    result = loaded({"REGISTRY_HTTP_PREFIX": ""}, http={"addr": ":5000", "prefix": "/x/"})

    assert result.settings.http.prefix == ""


def test_section_when_also_a_key_in_it_is_set_then_comes_first() -> None:
    environ = {
        "REGISTRY_STORAGE_S3_BUCKET": "images",
        "REGISTRY_STORAGE": "s3",
        "REGISTRY_STORAGE_S3_REGION": "eu-central-1",
    }

    storage = loaded(environ).settings.storage

    assert storage.driver == "s3"
    assert (storage.parameters["bucket"], storage.parameters["region"]) == ("images", "eu-central-1")


def test_storage_when_named_as_text_then_replaces_the_whole_section() -> None:
    storage = loaded({"REGISTRY_STORAGE": "filesystem"}).settings.storage

    assert storage.parameters["rootdirectory"] == "/var/lib/registry"
    assert not storage.delete.enabled


def test_storage_when_a_second_driver_is_added_then_is_refused_with_the_way_out() -> None:
    (problem,) = problems({"REGISTRY_STORAGE_S3_BUCKET": "images"})

    assert problem.startswith("storage: names 2 drivers (filesystem, s3); keep one")
    assert "REGISTRY_STORAGE" in problem


def test_storage_when_the_driver_is_unknown_then_is_refused() -> None:
    assert problems({"REGISTRY_STORAGE_FILESYTEM_ROOTDIRECTORY": "/x"})[0].startswith(
        "storage.filesytem: unknown key"
    )


def test_storage_when_the_file_names_it_as_text_then_takes_parameters() -> None:
    environ = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/x"}

    assert loaded(environ, storage="filesystem").settings.storage.parameters["rootdirectory"] == "/x"


def test_auth_when_its_provider_is_misspelt_then_is_not_dropped() -> None:
    # A warning here would open the registry to everybody.
    (problem,) = problems({"REGISTRY_AUTH_HTPASWD_REALM": "basic"})

    assert problem == "auth.htpaswd: unknown key; did you mean htpasswd? (set by REGISTRY_AUTH_HTPASWD_REALM)"


def test_auth_when_added_to_another_provider_then_is_refused() -> None:
    environ = {"REGISTRY_AUTH_HTPASSWD_PATH": "/x", "REGISTRY_AUTH_HTPASSWD_REALM": "basic"}

    assert problems(environ, auth="none")[0].startswith("auth: names 2 providers (none, htpasswd)")


def test_list_when_an_item_is_numbered_then_is_changed_and_the_next_appends() -> None:
    environ = {
        "REGISTRY_HTTP_TLS_CLIENTCAS_0": "/new.pem",
        "REGISTRY_HTTP_TLS_CLIENTCAS_1": "/more.pem",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_URL": "https://listener.example.com",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_HEADERS_AUTHORIZATION": "[token]",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_HEADERS_X-TRACE_0": "on",
    }
    tls = {"certificate": "/c", "key": "/k", "clientcas": ["/old.pem"]}

    settings = loaded(environ, http={"addr": ":5000", "tls": tls}).settings

    assert settings.http.tls.clientcas == ("/new.pem", "/more.pem")
    (endpoint,) = settings.notifications.endpoints
    assert endpoint.url == "https://listener.example.com"
    assert endpoint.headers == {"authorization": ("token",), "x-trace": ("on",)}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("REGISTRY_HTTP_TLS_CLIENTCAS_1", "http.tls.clientcas: REGISTRY_HTTP_TLS_CLIENTCAS_1 names item 1"),
        ("REGISTRY_HTTP_TLS_CLIENTCAS_X", "http.tls.clientcas: REGISTRY_HTTP_TLS_CLIENTCAS_X names 'x'"),
        (
            "REGISTRY_HTTP_TLS_CLIENTCAS_9999999999",
            "http.tls.clientcas: REGISTRY_HTTP_TLS_CLIENTCAS_9999999999",
        ),
        ("REGISTRY_NOTIFICATIONS_ENDPOINTS_2_URL", "notifications.endpoints: "),
    ],
)
def test_list_when_there_cannot_be_such_an_item_then_is_an_error(name: str, problem: str) -> None:
    (found,) = problems({name: "x"})

    assert found.startswith(problem)


def test_mapping_when_a_key_differs_in_case_then_is_the_same_and_a_new_one_is_small() -> None:
    environ = {
        "REGISTRY_HTTP_HEADERS_X-FRAME-OPTIONS": "[DENY]",
        "REGISTRY_HTTP_HEADERS_X-NEW": "[a]",
        "REGISTRY_LOG_FIELDS_SITE": "north",
        "REGISTRY_LOG_FIELDS_NESTED_KEY": "1",
    }

    settings = loaded(
        environ, http={"addr": ":5000", "headers": {"X-Frame-Options": ["SAMEORIGIN"]}}
    ).settings

    assert settings.http.headers == {"X-Frame-Options": ("DENY",), "x-new": ("a",)}
    assert settings.log.fields == {"site": "north", "nested": {"key": 1}}


def test_middleware_options_when_set_then_whatever_is_there_decides() -> None:
    middleware = {"storage": [{"name": "x", "options": {"List": ["a"], "Text": "b", "None": None}}]}
    environ = {
        "REGISTRY_MIDDLEWARE_STORAGE_0_OPTIONS_LIST_1": "c",
        "REGISTRY_MIDDLEWARE_STORAGE_0_OPTIONS_NONE_KEY": "d",
        "REGISTRY_MIDDLEWARE_STORAGE_0_OPTIONS_TEXT_KEY": "e",
    }

    result = loaded(environ, middleware=middleware)

    options = result.settings.middleware.storage[0].options
    assert options == {"List": ["a", "c"], "Text": "b", "None": {"key": "d"}}
    assert "REGISTRY_MIDDLEWARE_STORAGE_0_OPTIONS_TEXT_KEY: leads to no known key; ignored" in result.warnings


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_DUCKS",
        "REGISTRY_",
        "REGISTRY__HTTP",
        "REGISTRY_HTTP_",
        "REGISTRY_HTTP_DUCKS",
        "REGISTRY_HTTP_ADDR_DUCKS",
        "REGISTRY_http_addr",
        "REGISTRY_STORAGE_FILESYSTEM_DUCKS",
        "REGISTRY_RATE_LIMITER_ENABLED",
        "REGISTRY_LOG_FIELDS_",
    ],
)
def test_variable_when_it_leads_to_no_key_then_is_named_once_and_changes_nothing(name: str) -> None:
    result = loaded({name: "{["})

    assert result.warnings == (f"{name}: leads to no known key; ignored",)
    assert result.settings == loaded({}).settings


def test_version_when_set_then_is_not() -> None:
    result = loaded({"REGISTRY_VERSION": "0.2"})

    assert result.settings.version == "0.1"
    assert result.warnings == ("REGISTRY_VERSION: the version cannot be set from the environment; ignored",)


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_CONFIGURATION_PATH",
        "REGISTRY_AUTH_FILE",
        "REGISTRY_FF_BBM",
        "REGISTRY_SERVICE_HOST",
        "REGISTRY_SERVICE_PORT_HTTP",
        "REGISTRY_PORT",
        "REGISTRY_PORT_5000_TCP_ADDR",
        "registry_HTTP_ADDR",
        "REGISTRYHTTP_ADDR",
        "PATH",
    ],
)
def test_variable_when_it_is_not_ours_then_is_passed_over_in_silence(name: str) -> None:
    assert loaded({name: "tcp://10.0.0.1:5000"}).warnings == ()


def test_key_with_an_underscore_when_its_section_is_given_then_is_set() -> None:
    environ = {"REGISTRY_STORAGE": "{s3_v2: {bucket: b, checksum_disabled: true}}"}

    assert loaded(environ).settings.storage.parameters["checksum_disabled"] is True


def test_value_when_it_is_no_yaml_then_names_the_variable_and_not_the_value() -> None:
    (problem,) = problems({"REGISTRY_DATABASE_PASSWORD": "hunter2: [hunter2"})

    assert problem.startswith(
        "database.password: the value of REGISTRY_DATABASE_PASSWORD is not valid YAML at line 1"
    )
    assert "hunter2" not in problem


def test_value_when_wrong_then_names_the_variable_it_came_from() -> None:
    assert problems({"REGISTRY_LOG_LEVEL": "loud"}) == (
        "log.level: must be error, warn, info, debug or trace, not 'loud' (set by REGISTRY_LOG_LEVEL)",
    )


def test_value_when_its_section_is_wrong_in_the_file_then_that_is_told() -> None:
    assert problems({"REGISTRY_LOG_LEVEL": "debug"}, log=["x"])[0].startswith(
        "log: must be a mapping of keys"
    )
    assert problems({"REGISTRY_LOG_HOOKS_0_TYPE": "mail"}, log={"hooks": "x"})[0].startswith(
        "log.hooks: must be a"
    )
    assert problems({"REGISTRY_LOG_FIELDS_A": "b"}, log={"fields": "x"})[0].startswith(
        "log.fields: must be a"
    )


def test_environment_when_it_completes_a_file_then_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("version: 0.1\n")
    environ = {"REGISTRY_HTTP_ADDR": ":5000", "REGISTRY_STORAGE": "inmemory", "REGISTRY_DATABASE_HOST": "db"}

    assert load(path, environ).settings.unserved() == ()


PARTS = {part.rstrip("[]").upper() for key in keys(Settings) for part in key.path.split(".")}
NAMES = st.lists(
    st.sampled_from([*sorted(PARTS), "0", "1", "7", "", "ducks", "X-Y", "\ud800"]), max_size=5
).map(lambda parts: "_".join(["REGISTRY", *parts]))
PATHS = st.sampled_from(
    ["REGISTRY_" + key.path.replace("[]", ".0").replace(".", "_").upper() for key in keys(Settings)]
)
LETTERS = "ab1.0:{}[],&*!|>'\"\\#-_% \n\0\u00e9\ud800"
VALUES = st.text(alphabet=LETTERS, max_size=20) | st.sampled_from(
    [
        "",
        "true",
        "10",
        "-1",
        "10s",
        "[a, b]",
        "{a: b}",
        "{a: {b: [c]}}",
        "s3",
        "none",
        "'",
        "&a [*a]",
        "!x",
        "[",
        '"\\ud800"',
    ]
)


@given(st.dictionaries(NAMES | PATHS, VALUES, max_size=6))
def test_environment_when_it_is_anything_then_settings_or_sentences_come_of_it(
    environ: dict[str, str],
) -> None:
    told: tuple[str, ...]
    try:
        result = load(None, environ, base=BASE)
    except ConfigError as error:
        told = error.problems
    else:
        told = result.warnings
        assert Settings.model_validate_json(result.settings.model_dump_json()) == result.settings
    assert all("\n" not in sentence and ": " in sentence for sentence in told)
