"""`auth`: at most one provider. None is enforced yet, so a registry with one is not served at all."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import model_validator

from app.config.section import Section, Status, setting
from app.config.values import Flag, Text, Texts, refusal

REFUSED: Final = "not supported yet; `registry serve` refuses to start until it is"


class NoAuth(Section):
    """`auth.none`."""


class Silly(Section):
    """`auth.silly`."""

    realm: Text = setting("Realm of the challenge.", default="")
    service: Text = setting("Service of the challenge.", default="")


class Token(Section):
    """`auth.token`."""

    realm: Text = setting("URL of the token service.", default="")
    service: Text = setting("Name of this registry, which tokens must be for.", default="")
    issuer: Text = setting("Name that tokens must be issued by.", default="")
    rootcertbundle: Text = setting("File with the certificates that tokens are signed with.", default="")
    jwks: Text = setting("File with the keys that tokens are signed with.", default="")
    signingalgorithms: Texts = setting("Algorithms that signatures may use.", default=())
    autoredirect: Flag = setting("Realm at this registry's own host.", default=False)
    autoredirectpath: Text = setting("Path of that realm.", default="/auth/token")


class Htpasswd(Section):
    """`auth.htpasswd`."""

    realm: Text = setting("Realm of the challenge.", default="")
    path: Text = setting("File with users and bcrypt hashes.", default="")


class Auth(Section):
    """`auth`."""

    by_name: ClassVar[bool] = True

    none: NoAuth | None = setting("Everybody may do everything. Takes no keys.", default=None)
    silly: Silly | None = setting("Any credentials do.", default=None, status=Status.LATER, note=REFUSED)
    token: Token | None = setting(
        "Tokens of a token service.", default=None, status=Status.LATER, note=REFUSED
    )
    htpasswd: Htpasswd | None = setting("A file of users.", default=None, status=Status.LATER, note=REFUSED)

    @model_validator(mode="after")
    def _at_most_one(self) -> Auth:
        chosen = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise refusal(f"names {len(chosen)} providers ({', '.join(chosen)}); keep one")
        return self

    @property
    def provider(self) -> str:
        """The provider's name; `none` if there is none."""
        return next((name for name in type(self).model_fields if getattr(self, name) is not None), "none")
