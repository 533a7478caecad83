"""`auth`: at most one provider says who somebody is and what they may do."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, model_validator

from app.config.section import Section, setting
from app.config.values import Duration, Flag, Text, folded, refusal, shown, span

# Clients take a shorter life for this one, so shorter-lived tokens would be used after their end.
TOKEN_SECONDS_MIN: Final = 60
TOKEN_SECONDS_MAX: Final = 24 * 3600
ALGORITHMS: Final = (
    *("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"),
    *("HS256", "HS384", "HS512"),
)


def _algorithm(name: str) -> str:
    if name in ALGORITHMS:
        return name
    raise refusal(f"names {shown(name)}; signatures may be {', '.join(ALGORITHMS)}")


Algorithm = Annotated[Text, AfterValidator(_algorithm)]


class NoAuth(Section):
    """`auth.none`."""


class Silly(Section):
    """`auth.silly`."""

    realm: Text = setting("Realm of the challenge.", default="")
    service: Text = setting("Service of the challenge.", default="")


class Token(Section):
    """`auth.token`."""

    realm: Text = setting("URL of the token service.", default="")
    service: Text = setting("Name of this registry, which tokens must be for (`aud`).", default="")
    issuer: Text = setting("Name that tokens must be issued by (`iss`).", default="")
    rootcertbundle: Text = setting(
        "File with the certificates (PEM) whose keys tokens are signed with. Read again when it changes.",
        default="",
    )
    jwks: Text = setting(
        "File with the keys (JSON Web Key Set) that tokens are signed with. Read again when it changes.",
        default="",
    )
    signingalgorithms: tuple[Algorithm, ...] = setting(
        "Algorithms that signatures may use; none given: all of them. HS* only with keys of `jwks`.",
        default=(),
    )
    autoredirect: Flag = setting("Realm at this registry's own host.", default=False)
    autoredirectpath: Text = setting("Path of that realm.", default="/auth/token")

    @model_validator(mode="after")
    def _complete(self) -> Token:
        if not self.realm and not self.autoredirect:
            raise refusal("required; write the URL of the token service, as clients reach it", "realm")
        for key in ("service", "issuer"):
            if not getattr(self, key):
                raise refusal(f"required; write what the token service is told as its {key}", key)
        if not self.rootcertbundle and not self.jwks:
            raise refusal(
                "required, unless `jwks` is given: without keys no token can be verified", "rootcertbundle"
            )
        if self.autoredirect and not self.autoredirectpath.startswith("/"):
            raise refusal("must start with a slash", "autoredirectpath")
        return self


class Htpasswd(Section):
    """`auth.htpasswd`."""

    realm: Text = setting("Realm of the challenge.", default="")
    path: Text = setting(
        "File with users and bcrypt hashes (`htpasswd -B`). Read again when it changes. If it is not there, it is "
        "made with a user `docker`, whose password is written to a file beside it.",
        default="",
    )

    @model_validator(mode="after")
    def _complete(self) -> Htpasswd:
        for key in ("realm", "path"):
            if not getattr(self, key):
                raise refusal("required", key)
        return self


class Issuer(Section):
    """`auth.issuer`."""

    service: Text = setting("Name of this registry, which tokens are for (`aud`).", default="registry")
    issuer: Text = setting("Name that tokens are issued by (`iss`).", default="registry")
    realm: Text = setting(
        "URL of the token service, as clients reach it. Not given: `/auth/token` at the registry's own address.",
        default="",
    )
    key: Text = setting(
        "File with the private key (PEM) that signs tokens. Made at the first start, readable by its owner alone.",
        default="",
    )
    algorithm: Annotated[Literal["es256", "es384", "eddsa", "rs256"], folded()] = setting(
        "What a key that is made signs with: ES256, ES384, EdDSA or RS256.", default="es256"
    )
    expiresin: Duration = setting("How long tokens are valid.", default=span("5m"))
    refreshexpiresin: Duration = setting(
        "How long refresh tokens are valid, which `docker login` stores in place of the password; 0 gives none.",
        default=span("720h"),
    )
    onceusersexist: Flag = setting(
        "Everybody may do everything until the first account is made.", default=False
    )

    @model_validator(mode="after")
    def _complete(self) -> Issuer:
        if not self.key:
            raise refusal("required; write where the private key is, or is to be made", "key")
        for name in ("service", "issuer"):
            if not getattr(self, name):
                raise refusal("must not be empty", name)
        if not TOKEN_SECONDS_MIN <= self.expiresin.seconds <= TOKEN_SECONDS_MAX:
            raise refusal("must be from 1m to 24h", "expiresin")
        return self


class Auth(Section):
    """`auth`."""

    by_name: ClassVar[bool] = True

    none: NoAuth | None = setting("Everybody may do everything. Takes no keys.", default=None)
    silly: Silly | None = setting(
        "Any `Authorization` header will do: for development, not for protection.", default=None
    )
    token: Token | None = setting("Tokens of a token service, such as GitLab.", default=None)
    htpasswd: Htpasswd | None = setting("A file of users, who may do everything.", default=None)
    issuer: Issuer | None = setting(
        "The built-in token service, with accounts in the database.", default=None
    )

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
