"""`gc`, `rate_limiter` and `compatibility`: what works beside the requests, and what is gone."""

from __future__ import annotations

from app.config.section import Section, Status, section, setting
from app.config.values import Duration, Flag, Number, Text, Whole, span


class GcManifests(Section):
    """`gc.manifests`."""

    disabled: Flag = setting("Review no manifests.", default=False)
    interval: Duration = setting("Wait between two reviews.", default=span("5s"))


class GcBlobs(Section):
    """`gc.blobs`."""

    disabled: Flag = setting("Review no blobs.", default=False)
    interval: Duration = setting("Wait between two reviews.", default=span("5s"))
    storagetimeout: Duration = setting("How long a deletion in the storage may take.", default=span("5s"))


class Gc(Section):
    """`gc`."""

    disabled: Flag = setting("Run no garbage collection.", default=False)
    maxbackoff: Duration = setting("Longest wait between two reviews.", default=span("24h"))
    noidlebackoff: Flag = setting("Do not wait longer while there is nothing to do.", default=False)
    errorcooldownperiod: Duration = setting("How long waits stay long after an error.", default=span("0s"))
    transactiontimeout: Duration = setting("How long one review may take.", default=span("10s"))
    reviewafter: Duration = setting(
        "Age at which something unused is reviewed; -1 is at once.", default=span("24h")
    )
    manifests: GcManifests = section(GcManifests, "Manifests.")
    blobs: GcBlobs = section(GcBlobs, "Blobs.")


class Match(Section):
    """`rate_limiter.limiters[].match`."""

    type: Text = setting("`ip`.", default="")


class Limit(Section):
    """`rate_limiter.limiters[].limit`."""

    rate: Whole = setting("Requests in a period.", default=0)
    period: Text = setting("`second`, `minute` or `hour`.", default="second")
    burst: Whole = setting("Requests at once.", default=0)


class Action(Section):
    """`rate_limiter.limiters[].action`."""

    warn_threshold: Number = setting("Part of the limit at which to warn.", default=0.0)
    warn_action: Text = setting("`none` or `log`.", default="none")
    hard_action: Text = setting("`none`, `log` or `block`.", default="none")


class Limiter(Section):
    """An item of `rate_limiter.limiters`."""

    name: Text = setting("Name.", default="")
    description: Text = setting("What it is for.", default="")
    log_only: Flag = setting("Only log.", default=False)
    match: Match = section(Match, "Whom it counts.")
    precedence: Whole = setting("Lower ones come first.", default=0)
    limit: Limit = section(Limit, "The limit.")
    action: Action = section(Action, "What happens at it.")


class RateLimiter(Section):
    """`rate_limiter`."""

    enabled: Flag = setting("Limit requests.", default=False)
    limiters: tuple[Limiter, ...] = setting("The limits.", default=())


class Schema1(Section):
    """`compatibility.schema1`."""

    enabled: Flag = setting(
        "Docker's image format of before 2016.",
        default=False,
        status=Status.DEPRECATED,
        note="schema 1 images are not supported; ignored",
    )
    signingkeyfile: Text = setting("Key that they were signed with.", default="", status=Status.IGNORED)


class Compatibility(Section):
    """`compatibility`."""

    schema1: Schema1 = section(Schema1, "Docker schema 1.")
