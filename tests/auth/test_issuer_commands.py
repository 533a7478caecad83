"""`registry issuer`: keys are changed with no moment in which tokens are refused, and distrusted at once."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from app.auth.signing import ensure_key, read_signing_key
from app.store import signing_keys
from app.store.engine import Database
from tests.server.test_cli import call, configuration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from app.auth.signing import SigningKey
    from app.store.engine import Target


class Machine(NamedTuple):
    """A configuration with a key, and the database that it names."""

    config: Path
    key_path: Path
    target: Target

    @property
    def key(self) -> SigningKey:
        return read_signing_key(self.key_path)

    def issuer(self, command: str, *arguments: str) -> tuple[int, str, str]:
        return call("issuer", command, *arguments, self.config)

    def announce(self, kid: str = "") -> None:
        key = self.key
        self.act(
            lambda database: database.write(
                lambda c: signing_keys.announce(
                    c, kid or key.kid, key.algorithm, key.public_pem, timedelta(days=7)
                )
            )
        )

    def trusted(self) -> dict[str, timedelta]:
        """The keys that are trusted, and for how long."""
        rows = self.act(lambda database: database.read(signing_keys.trusted))
        return {row.kid: row.expires_at - datetime.now(UTC) for row in rows}

    def act(self, work: Callable[[Database], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            database = await Database.open(self.target, connections_max=1)
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(run())


@pytest.fixture
def machine(tmp_path: Path, database: Target) -> Machine:
    path = tmp_path / "keys" / "issuer.pem"
    ensure_key(path, "es256")
    issuer = {"key": str(path), "algorithm": "eddsa", "expiresin": "10m"}
    return Machine(configuration(tmp_path, database, auth={"issuer": issuer}), path, database)


def test_rotate_then_the_new_key_is_trusted_and_the_old_one_until_its_tokens_end(machine: Machine) -> None:
    machine.announce()
    old = machine.key
    code, output, errors = machine.issuer("rotate")
    new = machine.key
    assert (code, errors) == (0, "")
    assert output == (f"new key: {new.kid} (EdDSA)\nold key: {old.kid} (ES256), trusted for another 12 min\n")
    trusted = machine.trusted()
    assert trusted.keys() == {old.kid, new.kid}
    # Ten minutes of a token's life, one of leeway, one until the running registry has noticed.
    assert timedelta(minutes=11) < trusted[old.kid] < timedelta(minutes=13)
    assert trusted[new.kid] > timedelta(days=6)


def test_rotate_when_the_old_key_was_never_announced_then_it_says_that_it_is_not_trusted(
    machine: Machine,
) -> None:
    old = machine.key.kid
    assert machine.issuer("rotate")[1].splitlines()[1] == f"old key: {old} (ES256), not trusted"
    assert machine.trusted().keys() == {machine.key.kid}


def test_rotate_when_the_file_cannot_be_written_then_the_old_key_stays_in_force(
    tmp_path: Path, machine: Machine
) -> None:
    # A name so long that none fits beside it.
    path = machine.key_path.rename(machine.key_path.with_name("k" * 250))
    issuer = {"issuer": {"key": str(path)}}
    machine = Machine(configuration(tmp_path, machine.target, auth=issuer), path, machine.target)
    machine.announce()
    old = machine.key.kid
    code, output, errors = machine.issuer("rotate")
    assert (code, output) == (1, "")
    assert errors.startswith(f"registry: {path}: the key cannot be replaced: ")
    assert errors.endswith(": File name too long\n")
    assert machine.key.kid == old
    assert machine.trusted()[old] > timedelta(days=6)


def test_keys_then_each_is_told_with_its_end_and_whose_it_is(machine: Machine) -> None:
    machine.announce("another")
    code, output, errors = machine.issuer("keys")
    assert (code, errors) == (0, "")
    assert "another" in output
    assert output.endswith(
        f"this machine's key {machine.key.kid} is not trusted: the registry announces it when it starts, unless it"
        " was distrusted\n"
    )
    machine.announce()
    head, *lines = machine.issuer("keys")[1].splitlines()
    assert head.split() == ["KEY", "ALGORITHM", "TRUSTED", "UNTIL"]
    assert {line.split()[0]: line.endswith("this machine's") for line in lines} == {
        "another": False,
        machine.key.kid: True,
    }
    assert all(" UTC (in " in line for line in lines)
    found = json.loads(machine.issuer("keys", "--json")[1])
    assert found["own"] == machine.key.kid
    assert {key["kid"]: key["is_own"] for key in found["keys"]} == {"another": False, machine.key.kid: True}
    assert "PRIVATE" not in json.dumps(found)


@pytest.mark.parametrize("kid", ["another", "-hJ9"])
def test_distrust_then_the_key_is_trusted_no_more_and_others_are(machine: Machine, kid: str) -> None:
    machine.announce(kid)
    machine.announce()
    code, output, errors = machine.issuer("distrust", kid)
    assert (code, output, errors) == (0, "distrusted: no token of that key is accepted any more\n", "")
    assert machine.trusted().keys() == {machine.key.kid}
    code, output, errors = machine.issuer("distrust", kid)
    assert (code, output) == (1, "")
    assert errors.startswith("registry: no key of that name is trusted; see: registry issuer keys ")


def test_distrust_when_this_machine_signs_with_the_key_then_it_says_to_rotate_first(machine: Machine) -> None:
    machine.announce()
    old = machine.key.kid
    code, output, errors = machine.issuer("distrust", old)
    assert (code, output) == (1, "")
    assert errors.endswith(f"first: registry issuer rotate {machine.config}\n")
    machine.issuer("rotate")
    assert machine.issuer("distrust", old)[0] == 0
    assert machine.trusted().keys() == {machine.key.kid}


COMMANDS = [("keys",), ("rotate",), ("distrust", "x")]


def test_command_when_there_is_no_built_in_token_service_then_one_sentence_says_so(
    tmp_path: Path, database: Target
) -> None:
    config = configuration(tmp_path, database)
    sentence = "auth.issuer: required, because only the built-in token service has keys of its own"
    for arguments in COMMANDS:
        assert call("issuer", *arguments, config) == (2, "", f"registry: {sentence}\n")


def test_command_when_the_key_is_not_there_then_only_what_needs_it_fails(machine: Machine) -> None:
    """A key that has leaked can be distrusted from anywhere, also where its file is gone or another user's."""
    machine.announce("leaked")
    machine.key_path.unlink()
    sentence = f"{machine.key_path}: the key cannot be read: No such file or directory"
    assert machine.issuer("rotate") == (1, "", f"registry: {sentence}\n")
    unknown = f"registry: which key is this machine's is not known: {sentence}\n"
    code, output, errors = machine.issuer("keys")
    assert (code, errors) == (0, unknown)
    assert [line.split()[0] for line in output.splitlines()] == ["KEY", "leaked"]
    found = json.loads(machine.issuer("keys", "--json")[1])
    assert (found["own"], [key["is_own"] for key in found["keys"]]) == (None, [False])
    code, output, errors = machine.issuer("distrust", "leaked")
    assert (code, output, errors) == (
        0,
        "distrusted: no token of that key is accepted any more\n",
        unknown,
    )
    assert machine.trusted() == {}


def test_command_when_no_config_is_named_then_the_local_registrys_is_used_and_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.announce()
    monkeypatch.chdir(tmp_path)
    token = machine.key.sign({"iss": "registry", "aud": "registry", "exp": int(time.time()) + 300})
    commands = [("issuer", "keys"), ("token", "inspect", token), ("issuer", "rotate")]
    for arguments in commands:
        code, _, errors = call(*arguments)
        assert (code, "no configuration file was named" in errors) == (2, True)
    (tmp_path / "data").mkdir()
    machine.config.rename(tmp_path / "data" / "config.yml")
    for arguments in (*commands, ("issuer", "distrust", machine.key.kid)):
        code, _, errors = call(*arguments)
        assert (code, errors) == (0, "registry: using data/config.yml, as no CONFIG is named\n")
    assert len(machine.trusted()) == 1
