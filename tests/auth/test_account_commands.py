"""`registry user`, `robot` and `grant`, as an administrator runs them on a real database."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from app.auth.passwords import verify
from app.cli import run
from tests.gcview.support import Ran, Scene, scene
from tests.server.test_cli import COMMAND, call, environment

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

PASSWORD = "correct horse battery staple"
ISSUER = {"REGISTRY_AUTH_ISSUER_KEY": "/nowhere/key.pem"}


@dataclass(frozen=True)
class Admin:
    """Somebody at the command line of one registry."""

    scene: Scene

    def __call__(self, line: str, *more: str, stdin: str = "", **variables: str) -> Ran:
        """Run a command line, whose words are `line`'s and `more`."""
        output, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
            for key in os.environ:
                patch.delenv(key)
            for key, value in environment(**(ISSUER | variables)).items():
                patch.setenv(key, value)
            patch.setattr(
                sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogateescape")))
            )
            code = run([*line.split(), *more, str(self.scene.config)])
        return Ran(code, output.getvalue(), errors.getvalue())

    def done(self, line: str, *more: str, stdin: str = "") -> Ran:
        ran = self(line, *more, stdin=stdin)
        assert ran.code == 0, ran.errors
        return ran

    def add(self, name: str = "alice", *options: str) -> None:
        self.done(f"user add {name} --password-stdin", *options, stdin=PASSWORD)

    def hashes(self, name: str) -> list[str]:
        sql = "SELECT hash FROM account_secrets s JOIN accounts a ON a.id = account_id WHERE name = $1 ORDER BY s.id"
        return [row["hash"] for row in self.scene.rows(sql, name)]


@pytest.fixture
def admin(tmp_path: Path, database: Target) -> Admin:
    return Admin(scene(tmp_path, database))


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_user_add_when_the_password_comes_by_standard_input_then_it_is_the_users(
    admin: Admin, end: str
) -> None:
    ran = admin.done("user add alice --admin --password-stdin", stdin=PASSWORD + end)
    assert (ran.output, ran.errors) == ("added alice\n", "")
    [hashed] = admin.hashes("alice")
    assert verify(hashed, PASSWORD)
    [row] = admin.done("user list --json").json
    assert (row["name"], row["is_admin"], row["disabled_at"]) == ("alice", True, None)


def test_user_add_when_it_is_to_generate_then_the_password_alone_is_on_standard_output(admin: Admin) -> None:
    ran = admin.done("user add bob --generate")
    assert re.fullmatch(r"\S{20,}\n", ran.output)
    assert verify(admin.hashes("bob")[0], ran.output.strip())
    assert ran.output.strip() not in ran.errors
    changed = admin.done("user passwd bob --generate")
    assert verify(admin.hashes("bob")[0], changed.output.strip())


def test_user_add_when_there_is_a_terminal_then_it_asks_twice_and_shows_nothing(admin: Admin) -> None:
    control, terminal = pty.openpty()
    command = [*COMMAND, "user", "add", "alice", str(admin.scene.config)]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = b""
        for prompt in (b"Password: ", b"Once more: "):
            while not shown.endswith(prompt):
                shown += os.read(control, 1000)
            os.write(control, PASSWORD.encode() + b"\n")
        with suppress(OSError):  # the end of a terminal
            while more := os.read(control, 1000):
                shown += more
    os.close(control)
    assert process.returncode == 0, shown
    assert b"added alice" in shown
    assert PASSWORD.encode() not in shown
    assert verify(admin.hashes("alice")[0], PASSWORD)


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("", "at least 8 characters"),
        ("secret7", "at least 8 characters"),
        ("x" * 1025, "at most 1024 bytes"),
        ("x" * 5000, "at most 1024 bytes"),
        ("canary-one\ncanary-two", "control characters"),
        ("canary\x00canary", "control characters"),
        ("canary-\udcff", "not UTF-8"),
    ],
)
def test_user_add_when_the_password_is_none_then_one_sentence_says_why_without_it(
    admin: Admin, stdin: str, sentence: str
) -> None:
    ran = admin("user add alice --password-stdin", stdin=stdin)
    assert (ran.code, ran.output) == (1, "")
    assert sentence in ran.errors
    assert ran.errors.count("\n") == 1
    assert "canary" not in ran.errors
    assert admin.done("user list").output == ""


def test_password_when_nobody_can_be_asked_then_one_sentence_names_the_options(admin: Admin) -> None:
    ran = admin("user add alice")
    assert (ran.code, ran.output) == (2, "")
    assert "--password-stdin or --generate" in ran.errors
    assert admin("user add alice --generate --password-stdin").code == 2


@pytest.mark.parametrize(
    "command", ["user add", "robot add", "user disable", "robot secret list", "grant list"]
)
@pytest.mark.parametrize("name", ["Alice", "-", ".a", "a b", "a/b", "a:b", "", "é", "a" * 129])
def test_command_when_the_name_is_none_then_one_sentence_says_what_would_be(command: str, name: str) -> None:
    code, output, errors = call(*command.split(), "--", name, "/no/such/file")
    assert (code, output) == (2, "")
    assert "expected a lower-case letter or digit" in errors
    assert errors.count("\n") == 1


def test_user_add_when_the_name_is_taken_or_reserved_then_it_says_so(admin: Admin) -> None:
    admin.add()
    for command in ("user add alice --generate", "robot add alice"):
        ran = admin(command)
        assert (ran.code, ran.output) == (1, "")
        assert ran.errors == "registry: there is an account alice already\n"
    ran = admin("user add anonymous --generate")
    assert ran.code == 2
    assert "stands for everybody" in ran.errors


def test_user_commands_when_one_is_changed_then_it_is_so_and_told(admin: Admin) -> None:
    admin.add("alice", "--description", "Alice, of the ice")
    admin.scene.sql(
        "INSERT INTO refresh_tokens (hash, account_id, secret_id, service, client_id, expires_at)"
        " SELECT sha256(n::text::bytea), account_id, id, 'r', 'docker', now() + interval '1 day'"
        " FROM account_secrets, generate_series(1, 2) n"
    )
    assert admin.done("user revoke alice").output.startswith("ended 2 refresh tokens of alice; ")
    assert admin.done("user admin alice --on").output == "alice may do everything\n"
    assert admin.done("user disable alice").output.startswith("disabled alice: ")
    line = admin.done("user list").lines[1]
    assert re.fullmatch(r"alice +no +yes +\S+ \S+ UTC +never +Alice, of the ice", line)
    assert admin.done("user enable alice").output == "enabled alice\n"
    assert admin.done("user admin alice --off").output == "alice may do what is granted\n"
    assert re.match(r"alice +yes +no ", admin.done("user list").lines[1])
    admin.done("user passwd alice --password-stdin", stdin="another password")
    [hashed] = admin.hashes("alice")
    assert verify(hashed, "another password")
    ran = admin("user remove alice")
    assert (ran.code, ran.output) == (1, "")
    assert "Remove user alice with all its grants?" in ran.errors
    assert admin.hashes("alice") == [hashed]
    assert admin.done("user remove alice --yes").output == "removed alice\n"
    ran = admin.done("user list")
    assert (ran.output, ran.errors) == ("", "there is no user\n")


def test_command_when_there_is_no_such_account_or_it_is_of_another_kind_then_one_sentence_says_so(
    admin: Admin,
) -> None:
    admin.add()
    admin.done("robot add ci")
    both = ["disable {}", "enable {}", "remove {} --yes"]
    commands: dict[str, list[str]] = {
        "user": ["passwd {} --generate", "revoke {}", "admin {} --on", *both],
        "robot": ["secret add {}", "secret list {}", "secret remove {} 1", *both],
    }
    for kind, lines in commands.items():
        for line in lines:
            ran = admin(f"{kind} {line.format('nobody')}")
            assert (ran.code, ran.output) == (1, "")
            assert ran.errors == f"registry: there is no {kind} nobody; registry {kind} list shows all\n"
            ran = admin(f"{kind} {line.format('ci' if kind == 'user' else 'alice')}")
            assert (ran.code, ran.output) == (1, "")
            assert f"is no {kind} but a " in ran.errors
    assert [len(admin.hashes(name)) for name in ("alice", "ci")] == [1, 1]


def test_robot_secrets_when_one_is_exchanged_then_each_is_shown_once_and_alone(admin: Admin) -> None:
    first = admin.done("robot add ci --label first --expires 90d")
    second = admin.done("robot secret add ci --label", "the second")
    for ran in (first, second):
        assert re.fullmatch(r"rgs_\S{43}\n", ran.output)
        assert "shown this once" in ran.errors
        assert ran.output.strip() not in ran.errors
    kept = [ran.output.strip() for ran in (first, second)]
    hashes = admin.hashes("ci")
    assert [verify(h, secret) for h, secret in zip(hashes, kept, strict=True)] == [True, True]
    assert not any(secret in str(hashes) for secret in kept)
    listed = admin.done("robot secret list ci")
    assert re.search(r"\d+  \S+ \S+ UTC  \S+ \S+ UTC  never +first\n", listed.output)
    assert re.search(r"\d+  \S+ \S+ UTC  never +never +the second\n", listed.output)
    as_json = admin.done("robot secret list ci --json")
    for text in (listed.output, as_json.output, admin.done("robot list --json").output):
        assert not any(
            part in text for part in (*kept, "sha256:", *(h.removeprefix("sha256:") for h in hashes))
        )
    number = as_json.json[0]["id"]
    assert admin.done(f"robot secret remove ci {number}").output == f"removed secret {number} of ci\n"
    assert admin.hashes("ci") == hashes[1:]
    ran = admin(f"robot secret remove ci {number}")
    assert ran.errors == f"registry: ci has no secret {number}; registry robot secret list ci shows all\n"


def test_robot_secret_add_when_it_has_many_then_one_sentence_says_so(admin: Admin) -> None:
    admin.done("robot add ci")
    admin.scene.sql(
        "INSERT INTO account_secrets (account_id, hash)"
        " SELECT account_id, hash FROM account_secrets, generate_series(1, 19)"
    )
    ran = admin("robot secret add ci")
    assert (ran.code, ran.output) == (1, "")
    assert ran.errors == "registry: a robot has at most 20 secrets; remove one that nobody needs\n"


@pytest.mark.parametrize("text", ["90", "d", "-1d", "0d", "1.5d", "1w", "99999d", "", "1d\n", "\u0661d"])  # fmt: skip
def test_robot_add_when_the_lifetime_is_none_then_one_sentence_says_what_would_be(text: str) -> None:
    code, output, errors = call("robot", "add", "ci", "--expires", text, "/no/such/file")
    assert (code, output) == (2, "")
    assert "such as 90d" in errors


@pytest.mark.parametrize("option", ["--description", "--label"])
@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "x" * 101, "\u202e", "\x00"])
def test_robot_add_when_a_text_is_no_line_then_one_sentence_says_so(option: str, text: str) -> None:
    code, output, errors = call("robot", "add", "ci", option, text, "/no/such/file")
    assert (code, output) == (2, "")
    assert f"Invalid value for '{option}': one line of at most 100 printable" in errors


def test_grant_when_added_and_removed_then_the_list_shows_it(admin: Admin) -> None:
    admin.add()
    admin.done("robot add ci")
    assert admin.done("grant add ci pull,push", "team-a/**").output == "granted\n"
    assert admin.done("grant add ci delete,pull", "team-a/**").output == "granted\n"
    assert admin.done("grant add ci pull", "team-a/**").output == "nothing to do: ci has that grant\n"
    assert admin.done("grant add alice pull,catalog", "**").output == "granted\n"
    assert admin.done("grant add anonymous pull", "public/*").output == "granted\n"
    lines = [" ".join(line.split()[:3]) for line in admin.done("grant list").lines]
    assert lines == [
        "ACCOUNT ACTIONS PATTERN",
        "anonymous pull public/*",
        "alice catalog **",
        "alice pull **",
        "ci pull,push,delete team-a/**",
    ]
    assert [one["pattern"] for one in admin.done("grant list --json ci").json] == ["team-a/**"]
    assert [one["account"] for one in admin.done("grant list --json anonymous").json] == [None]
    assert admin.done("grant remove ci push,delete", "team-a/**").output == "taken back\n"
    ran = admin("grant remove ci push", "team-a/**")
    assert (ran.code, ran.errors) == (1, "registry: ci has no such grant; registry grant list shows all\n")
    admin.done("grant remove ci pull", "team-a/**")
    admin.done("grant remove alice catalog", "**")
    ran = admin.done("grant list ci")
    assert (ran.output, ran.errors) == ("", "nothing is granted\n")
    rows = admin.scene.rows("SELECT pattern, actions FROM grants ORDER BY pattern")
    assert rows == [
        {"pattern": "**", "actions": ["pull"]},
        {"pattern": "public/*", "actions": ["pull"]},
    ]
    assert "there is no account nobody" in admin("grant add nobody pull", "a").errors
    assert "there is no account nobody" in admin("grant list nobody").errors


@pytest.mark.parametrize(
    ("account", "actions", "pattern", "sentence"),
    [
        ("Alice", "pull", "a", "expected a lower-case letter or digit"),
        ("alice", "", "a", "expected some of pull, push, delete, catalog, joined by commas"),
        ("alice", "pull,write", "a", "'pull,write': expected some of pull, push, delete, catalog"),
        ("alice", "pull push", "a", "expected some of pull, push, delete, catalog"),
        ("alice", "*", "a", "expected some of pull, push, delete, catalog"),
        ("alice", "pull", "", "pattern"),
        ("alice", "pull", "Team/**", "pattern"),
        ("alice", "pull", "a**", "pattern"),
        ("alice", "pull,catalog", "a/**", "catalog is about the whole registry: its pattern is '**'"),
        ("anonymous", "push", "a", "anonymous may be granted pull and catalog"),
        ("anonymous", "pull,delete", "a", "anonymous may be granted pull and catalog"),
    ],
)
@pytest.mark.parametrize("command", ["add", "remove"])
def test_grant_when_it_would_mean_nothing_then_one_sentence_says_what_would(
    command: str, account: str, actions: str, pattern: str, sentence: str
) -> None:
    code, output, errors = call("grant", command, account, actions, pattern, "/no/such/file")
    assert (code, output) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_grant_list_when_there_are_more_than_a_page_then_all_are_listed(admin: Admin) -> None:
    admin.scene.sql(
        "INSERT INTO accounts (name, kind) SELECT 'robot-' || n, 'robot' FROM generate_series(1, 1100) n",
        "INSERT INTO grants (account_id, pattern, actions) SELECT id, name, '{pull}' FROM accounts",
    )
    assert len(admin.done("grant list").lines) == 1101
    assert len(admin.done("robot list").lines) == 1101


def test_command_when_no_config_is_named_then_the_local_registrys_is_used_and_told(
    admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = call("user", "list")
    assert (code, "no configuration file was named" in errors) == (2, True)
    (tmp_path / "data").mkdir()
    admin.scene.config.rename(tmp_path / "data" / "config.yml")
    code, output, errors = call("robot", "add", "ci")
    assert code == 0
    assert re.fullmatch(r"rgs_\S+\n", output)
    assert errors.startswith("registry: using data/config.yml, as no CONFIG is named\n")
    code, _, errors = call("user", "list", REGISTRY_CONFIGURATION_PATH="/nowhere.yml")
    assert (code, errors) == (2, "registry: /nowhere.yml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("kind", ["user", "robot"])
def test_account_when_the_registry_asks_for_none_then_is_made_and_one_sentence_says_so(
    admin: Admin, kind: str
) -> None:
    options = ("--generate",) if kind == "user" else ()
    code, output, errors = call(kind, "add", "alice", *options, admin.scene.config)
    assert (code, len(output.splitlines())) == (0, 1)
    assert "registry: accounts have no effect until auth.issuer is configured\n" in errors
    assert "accounts have no effect" not in admin.done(f"{kind} add bob", *options).errors


@pytest.mark.parametrize("group", ["user", "robot", "robot secret", "grant", "token", "issuer"])
def test_group_when_asked_for_help_then_every_summary_is_a_whole_sentence(group: str) -> None:
    code, output, _ = call(*group.split(), "--help")
    *_, summaries = output.partition("Commands:\n")
    assert code == 0
    assert re.fullmatch(r"(?: +\S.*[^.]\.\n)+", re.sub(r"\n {10,}", " ", summaries))


def test_command_when_pgbouncer_stands_before_the_database_then_it_works_as_well(admin: Admin) -> None:
    variables = {"REGISTRY_DATABASE_PREPAREDSTATEMENTS": "false"}
    for line in (
        "robot add ci",
        "robot secret add ci",
        "robot disable ci",
        "robot list",
        "grant add ci pull a",
    ):
        assert admin(line, **variables).code == 0


def test_arguments_when_a_password_is_among_them_then_no_command_takes_or_repeats_it() -> None:
    code, output, errors = call("user", "add", "alice", "--password", "canary")
    assert (code, output) == (2, "")
    assert "canary" not in errors
