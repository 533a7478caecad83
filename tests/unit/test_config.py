"""What operators write into the file, and what they are told about it."""

from __future__ import annotations

import re
import ssl
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.config import Address, ConfigError, Duration, Loaded, Settings, compile_pattern, load
from app.config.section import keys

DATA = Path(__file__).parent / "data"
EXAMPLES = sorted(path.name for path in DATA.glob("*.yml"))

SMALLEST = """
version: 0.1
http: {addr: ":5000"}
storage: {filesystem: {rootdirectory: /srv/registry}}
database: {host: db}
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(**sections: Any) -> Loaded:
    base = {"http": {"addr": ":5000"}, "storage": "filesystem", "database": {"host": "db"}}
    return load(None, {}, base={**base, **sections})


def problems(**sections: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(**sections)
    return caught.value.problems


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return caught.value.problems


# Files as they are


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_when_loaded_then_is_accepted_and_survives_json(name: str) -> None:
    settings = load(DATA / name, {}).settings

    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_when_printed_then_shows_no_secret(name: str) -> None:
    text = (DATA / name).read_text()
    secrets = set(
        re.findall(r"[\w-]+-secret\b|\bsecret-[\w-]+|\b[\w-]+-(?:access|secret|account)-key\b", text)
    )
    secrets |= {"aGVhbHRoOnNlY3JldA", "0123e4", "12345"}
    result = load(DATA / name, {})

    shown = f"{result!r} {result.settings} {result.warnings}"

    assert [secret for secret in sorted(secrets & set(re.findall(r"[\w-]+", text))) if secret in shown] == []


def test_smallest_file_when_loaded_then_has_the_documented_defaults_and_no_warning(tmp_path: Path) -> None:
    result = load(written(tmp_path, SMALLEST), {})
    settings = result.settings

    assert result.warnings == ()
    assert settings.unserved() == ()
    assert settings.log.level == "info"
    assert settings.log.formatter == "text"
    assert settings.storage.driver == "filesystem"
    assert settings.storage.parameters == {"rootdirectory": "/srv/registry", "maxthreads": 100}
    assert settings.storage.maintenance.uploadpurging.age == Duration.parse("168h")
    assert not settings.storage.delete.enabled
    assert settings.catalog.maxentries == 1000
    assert settings.tags.maxtags == 1000
    assert settings.database.port == 5432
    assert settings.database.pool.maxopen == 10
    assert settings.database.pool.queuetimeout.seconds == 5.0
    assert settings.http.draintimeout.seconds == 0.0
    assert settings.http.debug.address is None
    assert settings.http.debug.metrics_path is None
    assert settings.health.storagedriver.interval.seconds == 10.0


def test_v2_file_when_loaded_then_old_spellings_mean_the_same() -> None:
    result = load(DATA / "distribution-v2-typical.yml", {})
    settings = result.settings

    assert settings.log.formatter == "json"
    assert settings.http.net == "tcp"
    assert settings.storage.cache.layerinfo == "redis"
    assert "redis.addr: not supported yet; ignored" in result.warnings
    # Switched off in the file, so nobody misses them.
    assert not [w for w in result.warnings if w.startswith(("notifications", "log.hooks", "compatibility"))]


def test_v3_file_when_loaded_then_only_what_does_nothing_is_warned_of() -> None:
    result = load(DATA / "distribution-v3-image.yml", {})

    assert result.warnings == (
        "database.host: not set; `registry serve` needs it, because the metadata is kept in PostgreSQL",
    )
    assert result.settings.http.debug.metrics_path == "/metrics"
    assert result.settings.http.debug.address == Address("", 5001)


def test_v3_file_with_every_key_when_loaded_then_nothing_insecure_is_served() -> None:
    result = load(DATA / "distribution-v3-every-key.yml", {})

    assert [reason.partition(":")[0] for reason in result.settings.unserved()] == [
        "storage.s3",
        "proxy.remoteurl",
        "database.host",
    ]
    assert "loglevel: deprecated; use log.level" in result.warnings
    assert result.settings.log.level == "error"
    assert result.settings.storage.s3 is not None
    assert result.settings.storage.s3.loglevel == "off"
    assert result.settings.storage.s3.multipartcopythresholdsize == 5 * 1024**3
    assert result.settings.validation.manifests.indexes.platforms == "list"
    assert len(result.warnings) == len(set(result.warnings))


def test_gitlab_file_when_loaded_then_is_served_without_a_warning() -> None:
    result = load(DATA / "gitlab-typical.yml", {})
    settings = result.settings

    assert result.warnings == ()
    assert settings.unserved() == ()
    assert settings.database.enabled == "prefer"
    assert settings.database.password.get_secret_value() == "0123e4"
    assert settings.database.pool.maxlifetime.seconds == 300.0
    assert settings.log.output == "stdout"


def test_gitlab_sections_when_loaded_then_values_are_kept_and_named() -> None:
    result = load(DATA / "gitlab-every-section.yml", {})
    settings = result.settings

    assert settings.storage.driver == "azure"
    assert settings.gc.reviewafter == Duration(-1)
    assert settings.redis.password.get_secret_value() == "12345"
    assert settings.redis.sentinelpassword.get_secret_value() == "yes"
    assert settings.rate_limiter.limiters[0].action.warn_threshold == 0.7
    assert (
        "gc.reviewafter: shorter than a push, which relies on what it was told exists; 10m is used"
        in result.warnings
    )
    assert settings.gc.review_delay_seconds == 600
    assert "redis.ratelimiter.addr: not supported yet; ignored" not in result.warnings
    assert "profiling.stackdriver.service: not supported yet; ignored" not in result.warnings


# The file itself


def test_file_when_missing_then_says_so(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "none.yml") == (
        f"{tmp_path}/none.yml: cannot be read: No such file or directory",
    )


def test_file_when_it_is_a_directory_then_says_so(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == (f"{tmp_path}: cannot be read: Is a directory",)


def test_file_when_none_is_named_then_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="REGISTRY_CONFIGURATION_PATH"):
        load(None, {})


def test_file_when_only_the_environment_names_it_then_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST)

    assert load(None, {"REGISTRY_CONFIGURATION_PATH": str(path)}).settings.http.addr == ":5000"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "FILE: must be a mapping of keys; it starts with `version: 0.1`"),
        ("- a\n", "FILE: must be a mapping of keys; it starts with `version: 0.1`"),
        ("version: 0.1\nhttp: {addr: x", "FILE: is not valid YAML at line 2, column 15: "),
        ("a: b\n--- \nc: d\n", "FILE: is not valid YAML at line 2, column 1: "),
        (b"version: 0.1\nlog: {level: \xff}", "FILE: is not valid YAML: it has characters that are not text"),
        ("http: {addr: ':1'}\n", "version: required; write `version: 0.1`"),
        ("version: 0.2\nnonsense: 1\n", "version: must be 0.1, not 0.2"),
        ("version: [1]\n", "version: must be 0.1, not a list"),
        (
            "version: 0.1\nlog:\n  level: a\n  level: b\n",
            "log.level: given more than once, at lines 3, 4; keep one",
        ),
        ("version: 0.1\nversion: 0.1\n", "version: given more than once, at lines 1, 2; keep one"),
        ("version: 0.1\nlog: &a {fields: {x: *a}}\n", "log.fields.x: refers to itself, at line 2"),
        ("version: 0.1\nlog: !thing {}\n", "log: has a YAML tag, at line 2"),
        ("version: 0.1\nlog: {level: !thing x}\n", "log.level: has a YAML tag, at line 2"),
        ("version: 0.1\n[1]: 2\n", "FILE: has a key that is not plain text, at line 2"),
        ('version: 0.1\nlog: {level: "\\0"}\n', "log.level: has a character that is not text, at line 2"),
        ("version: 0.1\nlog: " + "[" * 40 + "]" * 40, "FILE: is nested more than 32 levels deep"),
        ("version: 0.1\nlog: " + "[" * 5000 + "]" * 5000, "FILE: is nested more than 32 levels deep"),
        ("#" * (1024 * 1024 + 1), "FILE: is larger than 1048576 bytes"),
    ],
)
def test_file_when_it_is_no_configuration_then_says_why(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    path = written(tmp_path, text)

    found = problems_of(path)

    assert found[0].replace(str(path), "FILE").startswith(problem)


def test_aliases_when_they_multiply_then_are_stopped(tmp_path: Path) -> None:
    lines = ["version: 0.1", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert "more than 50000 values" in problems_of(written(tmp_path, "\n".join(lines)))[0]


def test_merge_when_used_then_own_keys_win(tmp_path: Path) -> None:
    text = (
        SMALLEST
        + "health:\n  storagedriver: &a {enabled: true, interval: 1m}\n  database: {<<: *a, interval: 2m}\n"
    )

    health = load(written(tmp_path, text), {}).settings.health

    assert (health.database.enabled, str(health.database.interval)) == (True, "2m")


@pytest.mark.parametrize(
    "text",
    [
        "password: 'hunter2",
        'password: "hunter2\\q"',
        "password: *hunter2",
        "password: !hunter2 x",
        "password: !hunter2!x y",
        "password: %hunter2",
        "password: @hunter2",
        "password: {hunter2",
        "password: [hunter2]",
        "password: {a: hunter2}",
        "password: hunter2: hunter2",
        "password: a\n password: hunter2",
        "password: |hunter2",
        "port: {password: hunter2}",
    ],
)
def test_secret_when_the_file_is_broken_around_it_then_is_in_no_problem(tmp_path: Path, text: str) -> None:
    found = problems_of(
        written(tmp_path, f"{SMALLEST.replace('database: {host: db}', '')}\ndatabase:\n  {text}\n")
    )

    assert found
    assert "hunter2" not in " ".join(found)


# Keys and values


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"htpp": {}}, "htpp: unknown key; did you mean http?"),
        ({"qqqq": {}}, "qqqq: unknown key"),
        ({"log": {"Level": "info"}}, "log.Level: unknown key; did you mean level?"),
        (
            {"http": {"addr": ":1", "tls": {"minimumtsl": "tls1.2"}}},
            "http.tls.minimumtsl: unknown key; did you mean minimumtls?",
        ),
        (
            {"http": {"addr": ":1", "clientcas": ["/ca.pem"]}},
            "http.clientcas: unknown key; did you mean http.tls.clientcas?",
        ),
        ({"rootdirectory": "/x"}, "rootdirectory: unknown key"),
        ({"log": "debug"}, "log: must be a mapping of keys, not a single value"),
        ({"log": {"level": "loud"}}, "log.level: must be error, warn, info, debug or trace, not 'loud'"),
        ({"loglevel": "loud"}, "loglevel: must be error, warn, info, debug or trace, not 'loud'"),
        (
            {"log": {"accesslog": {"disabled": "maybe"}}},
            "log.accesslog.disabled: must be true or false, not 'maybe'",
        ),
        ({"http": {}}, "http.addr: required; write where to listen, such as :5000"),
        ({"http": None}, "http.addr: required; write where to listen, such as :5000"),
        ({"http": {"addr": ""}}, "http.addr: required; write where to listen, such as :5000"),
        ({"http": {"addr": 5000}}, "http.addr: must be :PORT, HOST:PORT or [IPV6]:PORT, not '5000'"),
        (
            {"http": {"addr": "::1:5000"}},
            "http.addr: must be :PORT, HOST:PORT or [IPV6]:PORT, not '::1:5000'",
        ),
        ({"http": {"addr": ":70000"}}, "http.addr: must be :PORT, HOST:PORT or [IPV6]:PORT, not ':70000'"),
        (
            {"http": {"addr": ":1", "debug": {"addr": "x"}}},
            "http.debug.addr: must be :PORT, HOST:PORT or [IPV6]:PORT, not 'x'",
        ),
        ({"http": {"addr": ":1", "net": "udp"}}, "http.net: must be tcp or unix, not 'udp'"),
        (
            {"http": {"addr": ":1", "prefix": "/x"}},
            "http.prefix: must start and end with a slash, such as /registry/, not '/x'",
        ),
        (
            {"http": {"addr": ":1", "host": "registry.example.com"}},
            "http.host: must be an absolute URL such as https://registry.example.com",
        ),
        ({"http": {"addr": ":1", "host": "http://[x"}}, "http.host: must be an absolute URL"),
        ({"http": {"addr": ":1", "host": "https://u:p@x/"}}, "http.host: must be an absolute URL"),
        ({"http": {"addr": ":1", "workers": -1}}, "http.workers: must be at least 0, not -1"),
        ({"http": {"addr": ":1", "workers": True}}, "http.workers: must be a whole number, not true"),
        ({"http": {"addr": ":1", "draintimeout": "10"}}, "http.draintimeout: must be a duration such as 10s"),
        (
            {"http": {"addr": ":1", "draintimeout": "-1s"}},
            "http.draintimeout: must not be negative, and -1s is",
        ),
        ({"http": {"addr": ":1", "draintimeout": True}}, "http.draintimeout: must be a duration such as 10s"),
        (
            {"http": {"addr": ":1", "headers": {"X-A": "b"}}},
            "http.headers.X-A: must be a list, not a single value",
        ),
        (
            {"http": {"addr": ":1", "headers": {"X A": ["b"]}}},
            "http.headers: has 'X A', which is no header name",
        ),
        (
            {"http": {"addr": ":1", "headers": {"X-A": ["b\r\nc"]}}},
            "http.headers.X-A: has a value that no header",
        ),
        (
            {"http": {"addr": ":1", "debug": {"prometheus": {"path": "metrics"}}}},
            "http.debug.prometheus.path: must start with a slash, not 'metrics'",
        ),
        (
            {"http": {"addr": ":1", "tls": {"minimumtls": "tls1.0"}}},
            "http.tls.minimumtls: must be tls1.2 or tls1.3, not 'tls1.0'",
        ),
        (
            {"http": {"addr": ":1", "tls": {"certificate": "/c.pem"}}},
            "http.tls.key: required, because http.tls.certificate is set",
        ),
        (
            {"http": {"addr": ":1", "tls": {"key": "/k.pem"}}},
            "http.tls.certificate: required, because http.tls.key is set",
        ),
        (
            {"http": {"addr": ":1", "tls": {"clientcas": ["/ca"]}}},
            "http.tls.clientcas: needs http.tls.certificate",
        ),
        (
            {"http": {"addr": ":1", "tls": {"ciphersuites": ["TLS_RSA_WITH_RC4_128_SHA"]}}},
            "http.tls.ciphersuites.0: names 'TLS_RSA_WITH_RC4_128_SHA', which is broken and no longer offered",
        ),
        (
            {"http": {"addr": ":1", "tls": {"ciphersuites": ["ECDHE-RSA-AES128-SHA"]}}},
            "http.tls.ciphersuites.0: names 'ECDHE-RSA-AES128-SHA', which is no cipher suite",
        ),
        ({"storage": None}, "storage: names no driver; write filesystem: and its rootdirectory"),
        ({"storage": {"delete": {"enabled": True}}}, "storage: names no driver"),
        (
            {"storage": {"filesystem": None, "s3": None}},
            "storage: names 2 drivers (filesystem, s3); keep one",
        ),
        ({"storage": {"s3": {}, "s3_v2": {}}}, "storage: names 2 drivers (s3, s3_v2); keep one"),
        ({"storage": "filesytem"}, "storage.filesytem: unknown key; did you mean filesystem?"),
        (
            {"storage": {"filesystem": {"maxthreads": "many"}}},
            "storage.filesystem.maxthreads: must be a whole number, not 'many'",
        ),
        (
            {"storage": {"filesystem": {"rootdirectory": " "}}},
            "storage.filesystem.rootdirectory: must name a directory",
        ),
        ({"storage": {"inmemory": {"size": 1}}}, "storage.inmemory.size: unknown key"),
        ({"auth": {"silly": {}, "none": {}}}, "auth: names 2 providers (none, silly); keep one"),
        ({"auth": "htpasswd"}, "auth.htpasswd.realm: required"),
        ({"auth": {"token": {}}}, "auth.token.realm: required"),
        ({"auth": "htpaswd"}, "auth.htpaswd: unknown key; did you mean htpasswd?"),
        ({"database": {"port": 70000}}, "database.port: must be a port up to 65535, not 70000"),
        ({"database": {"sslmode": "yes"}}, "database.sslmode: must be disable, allow, prefer, require"),
        ({"database": {"enabled": "maybe"}}, "database.enabled: must be true, false or prefer, not 'maybe'"),
        ({"database": {"password": ["p"]}}, "database.password: must be text"),
        (
            {"health": {"database": {"threshold": -1}}},
            "health.database.threshold: must be at least 0, not -1",
        ),
        ({"health": {"file": {"file": "/x"}}}, "health.file: must be a list, not a mapping"),
        (
            {"validation": {"manifests": {"urls": {"allow": ["("]}}}},
            "validation.manifests.urls.allow.0: must be a regular expression (RE2 syntax): missing ): (",
        ),
        (
            {"validation": {"manifests": {"urls": {"deny": ["(?<=a)b"]}}}},
            "validation.manifests.urls.deny.0: must be a regular expression (RE2 syntax)",
        ),
        (
            {"validation": {"manifests": {"indexes": {"platforms": "some"}}}},
            "validation.manifests.indexes.platforms: must be all, none or list, not 'some'",
        ),
        ({"version": "0.2"}, "version: must be 0.1, not '0.2'"),
        ({"log\nx": 1}, "log?x: unknown key"),
    ],
)
def test_value_when_wrong_then_one_sentence_says_where_and_what_is_right(
    sections: dict[str, Any], expected: str
) -> None:
    found = problems(**sections)

    assert len(found) == 1
    assert found[0].startswith(expected)


def test_mistakes_when_there_are_several_then_all_are_told_at_once() -> None:
    found = problems(log={"level": "loud", "colour": 1}, catalog={"maxentries": "x"})

    assert [problem.partition(":")[0] for problem in found] == [
        "log.level",
        "log.colour",
        "catalog.maxentries",
    ]


def test_error_when_printed_then_has_every_problem_and_no_value_of_text() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(database={"password": {"a": "hunter2"}, "host": ["hunter2"]})

    assert str(caught.value) == "database.host: must be text\ndatabase.password: must be text"


@pytest.mark.parametrize(
    "text", ["012345", "1_000", "0x1F", "1e3", "yes", "null0", "2024-01-02", "12:30", "1.50"]
)
def test_text_when_yaml_reads_more_into_it_then_keeps_its_spelling(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, SMALLEST.replace("host: db", f"host: db, password: {text}"))

    assert load(file, {}).settings.database.password.get_secret_value() == text


@pytest.mark.parametrize("value", [{"filesystem": None}, {"filesystem": {}}, "filesystem"])
def test_driver_when_named_without_parameters_then_has_its_defaults(value: Any) -> None:
    storage = loaded(storage=value).settings.storage

    assert storage.parameters == {"rootdirectory": "/var/lib/registry", "maxthreads": 100}


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("s3", "s3"),
        ("s3aws", "s3"),
        ("s3_v2", "s3"),
        ("azure_v2", "azure"),
        ("gcs", "gcs"),
        ("swift", "swift"),
    ],
)
def test_driver_when_not_supported_then_is_known_by_its_own_name_and_not_served(
    name: str, driver: str
) -> None:
    result = loaded(storage={name: {}})

    assert result.settings.storage.driver == driver
    assert result.settings.unserved() == (
        f"storage.{driver}: this storage driver is not supported yet; use filesystem",
    )


@pytest.mark.parametrize(("given", "threads"), [(0, 25), (24, 25), (25, 25), (300, 300)])
def test_threads_when_fewer_than_25_then_are_25(given: int, threads: int) -> None:
    settings = loaded(storage={"filesystem": {"maxthreads": given}}).settings

    assert settings.storage.parameters["maxthreads"] == threads


@pytest.mark.parametrize(
    ("sections", "path", "value"),
    [
        ({"catalog": {"maxentries": 0}}, "catalog.maxentries", 1000),
        ({"catalog": {"maxentries": -5}}, "catalog.maxentries", 1000),
        ({"tags": {"maxtags": 0}}, "tags.maxtags", 1000),
        ({"database": {"pool": {"maxopen": 0}}}, "database.pool.maxopen", 10),
        ({"database": {"pool": {"queuetimeout": 0}}}, "database.pool.queuetimeout.seconds", 5.0),
        ({"database": {"port": 0}}, "database.port", 5432),
        ({"health": {"storagedriver": {"interval": 0}}}, "health.storagedriver.interval.seconds", 10.0),
        ({"health": {"database": {"threshold": 0}}}, "health.database.threshold", 1),
    ],
)
def test_zero_when_it_stands_for_the_default_then_is_the_default(
    sections: dict[str, Any], path: str, value: object
) -> None:
    assert attrgetter(path)(loaded(**sections).settings) == value


def test_old_loglevel_when_alone_then_is_the_level_and_when_not_then_is_not() -> None:
    assert loaded(loglevel="DEBUG").settings.log.level == "debug"
    assert loaded(loglevel="debug", log={"level": "warn"}).settings.log.level == "warn"
    assert loaded(loglevel="debug", log={"formatter": "json"}).settings.log.level == "debug"


# Addresses, TLS, the debug server


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":5000", Address("", 5000)),
        ("localhost:0", Address("localhost", 0)),
        ("10.0.0.1:5000", Address("10.0.0.1", 5000)),
        ("[::1]:5000", Address("::1", 5000)),
        ("[::]:5000", Address("::", 5000)),
    ],
)
def test_address_when_well_formed_then_is_taken_apart(text: str, address: Address) -> None:
    assert loaded(http={"addr": text}).settings.http.address == address


def test_address_when_the_net_is_unix_then_is_a_path() -> None:
    http = loaded(http={"addr": "/run/registry.sock", "net": "unix"}).settings.http

    assert (http.net, http.addr) == ("unix", "/run/registry.sock")


def test_cipher_suites_when_named_as_in_go_then_openssl_takes_them() -> None:
    names = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]
    tls = loaded(http={"addr": ":1", "tls": {"ciphersuites": names}}).settings.http.tls

    assert tls.openssl_ciphers == "ECDHE-RSA-AES128-GCM-SHA256"
    assert not tls.only_tls13


def test_cipher_suites_when_none_are_named_then_are_distributions_six() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(loaded().settings.http.tls.openssl_ciphers)

    offered = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}

    assert len(offered) == 6
    assert all("GCM" in name or "CHACHA20" in name for name in offered)


def test_cipher_suites_when_all_are_of_tls_1_3_then_tls_1_2_is_out() -> None:
    tls = loaded(http={"addr": ":1", "tls": {"ciphersuites": ["TLS_AES_128_GCM_SHA256"]}}).settings.http.tls

    assert tls.only_tls13


def test_metrics_when_switched_off_then_have_no_path() -> None:
    debug = {"addr": ":5001", "prometheus": {"enabled": False}}

    assert loaded(http={"addr": ":1", "debug": debug}).settings.http.debug.metrics_path is None


def test_pattern_when_compiled_then_matches_as_in_go() -> None:
    pattern = compile_pattern(r"^https?://([^/]+\.)*example\.com/")

    assert pattern.search("https://cdn.example.com/layer")
    assert not pattern.search("https://example.com.evil.test/")


# Warnings, and what keeps the registry from starting


@pytest.mark.parametrize(
    ("sections", "warnings"),
    [
        ({"redis": {"addr": "x", "db": 0}}, ["redis.addr: not supported yet; ignored"]),
        ({"gc": {"disabled": True, "maxbackoff": "1h"}}, []),
        ({"gc": {"maxbackoff": "24h"}}, []),
        ({"middleware": {"storage": [{"name": "x", "disabled": True}]}}, []),
        ({"middleware": {"storage": [{"name": "x"}]}}, ["middleware.storage: not supported yet; ignored"]),
        ({"policy": {"repository": {"classes": []}}}, []),
        ({"log": {"reportcaller": True}}, []),
        (
            {"database": {"host": "db", "enabled": False}},
            ["database.enabled: false has no effect; the metadata is always kept in PostgreSQL"],
        ),
        ({"validation": {"enabled": True}}, ["validation.enabled: deprecated and without effect"]),
        (
            {"compatibility": {"schema1": {"enabled": True}}},
            ["compatibility.schema1.enabled: schema 1 images"],
        ),
        ({"auth": {"none": None}}, []),
        ({"auth": "none"}, []),
    ],
)
def test_key_when_it_does_nothing_then_is_named_once(sections: dict[str, Any], warnings: list[str]) -> None:
    found = loaded(**sections).warnings

    assert len(found) == len(warnings)
    assert all(text.startswith(start) for text, start in zip(found, warnings, strict=True))


def test_duration_when_it_has_no_unit_then_the_likely_slip_is_told(tmp_path: Path) -> None:
    text = SMALLEST.replace('addr: ":5000"', 'addr: ":5000", draintimeout: 60')

    assert load(written(tmp_path, text), {}).warnings == (
        "http.draintimeout: 60 without a unit is nanoseconds; 60s would be seconds",
    )


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"storage": {"s3": {"bucket": "b"}}}, "storage.s3: this storage driver is not supported yet"),
        (
            {"proxy": {"remoteurl": "https://x"}},
            "proxy.remoteurl: the pull-through cache is not supported yet",
        ),
        ({"database": None}, "database.host: required"),
        (
            {"http": {"addr": ":1", "tls": {"letsencrypt": {"email": "a@b"}}}},
            "http.tls.letsencrypt: not supported",
        ),
    ],
)
def test_registry_when_less_safe_than_its_settings_then_is_not_served(
    sections: dict[str, Any], reason: str
) -> None:
    (found,) = loaded(**sections).settings.unserved()

    assert found.startswith(reason)


# The tree of settings


def test_settings_when_changed_then_refuse() -> None:
    settings = loaded().settings

    with pytest.raises(ValidationError, match="frozen"):
        settings.http.addr = ":1"


def test_settings_when_sent_as_json_then_keep_their_secrets_and_are_checked_again() -> None:
    sent = loaded(database={"host": "db", "password": "hunter2"}).settings.model_dump_json()

    assert Settings.model_validate_json(sent).database.password.get_secret_value() == "hunter2"
    with pytest.raises(ValidationError):
        Settings.model_validate_json(sent.replace('"tcp"', '"udp"'))


def test_base_when_used_then_stays_as_it_was() -> None:
    base: dict[str, object] = {"http": {"addr": ":1"}, "storage": {"filesystem": {}}}

    load(None, {"REGISTRY_HTTP_ADDR": ":2"}, base=base)

    assert base == {"http": {"addr": ":1"}, "storage": {"filesystem": {}}}


def test_keys_when_listed_then_include_nested_ones_and_items_of_lists() -> None:
    paths = {key.path for key in keys(Settings)}

    assert {
        "http.tls.minimumtls",
        "notifications.endpoints[].ignore.actions",
        "redis.cache.pool.size",
    } <= paths


# Durations


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("10s", 10_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("300ms", 300_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("+5s", 5_000_000_000),
        ("0", 0),
        ("-0", 0),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),
        ("1h1m1s1ms1us1ns", 3_661_001_001_001),
        ("0.000000001s", 1),
    ],
)
def test_duration_when_written_as_in_go_then_means_the_same(text: str, nanoseconds: int) -> None:
    assert Duration.parse(text) == Duration(nanoseconds)


@pytest.mark.parametrize(
    "text", ["", "-", "10", "s", ".s", "10 s", "1d", "1H", "--1s", "1s2", "1e3s", "٣s", "9" * 30 + "h"]
)
def test_duration_when_it_is_none_then_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Duration.parse(text)


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1).map(Duration))
def test_duration_when_written_then_reads_back_as_itself(duration: Duration) -> None:
    assert Duration.parse(str(duration)) == duration


@given(st.text(alphabet="0123456789.hmsnuµ+-", max_size=30))
def test_duration_when_it_is_any_text_then_is_read_or_refused(text: str) -> None:
    try:
        duration = Duration.parse(text)
    except ValueError:
        return
    assert Duration.parse(str(duration)) == duration
