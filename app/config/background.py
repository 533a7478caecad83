"""`gc`, `rate_limiter` and `compatibility`: what works beside the requests, and what is gone."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from app.config.section import Section, Status, section, setting
from app.config.values import Count, Duration, Flag, Number, Text, Whole, span

# Less than this may pass between the answer "it is there" and the end of the push that relies on it.
REVIEW_DELAY_SECONDS_MIN: Final = 600.0


class GcManifests(Section):
    """`gc.manifests`."""

    disabled: Flag = setting("Review no manifests.", default=False)
    interval: Duration = setting("Shortest wait once nothing more is due.", default=span("5s"))
    keepuntagged: Flag = setting("Keep manifests that nothing names.", default=False)


class GcBlobs(Section):
    """`gc.blobs`."""

    disabled: Flag = setting("Review no blobs and delete no objects.", default=False)
    interval: Duration = setting("Shortest wait once nothing more is due.", default=span("5s"))
    storagetimeout: Duration = setting(
        "How long the deletion of a batch of objects may take.", default=span("5s")
    )
    storagedelay: Duration = setting(
        "How long objects stay after their blob, for downloads under way.", default=span("30m")
    )


class GcReceipts(Section):
    """`gc.receipts`."""

    age: Duration = setting("How long to remember what was deleted.", default=span("2160h"))


class Gc(Section):
    """`gc`."""

    disabled: Flag = setting("Run no collectors beside `registry serve`.", default=False)
    batchsize: Annotated[Whole, Field(ge=1, le=1000)] = setting("Most reviews at a time.", default=100)
    load: Annotated[Number, Field(gt=0, le=1)] = setting(
        "Part of its time that each collector is at work, unless it is late; 1 is without pauses.",
        default=0.05,
    )
    ratelimit: Count = setting("Most reviews a second of each collector; 0 is as many as it can.", default=0)
    maxbackoff: Duration = setting(
        "Longest wait. No collector waits longer than a minute for work, five after errors.",
        default=span("24h"),
    )
    noidlebackoff: Flag = setting("Always look again after the interval.", default=False)
    errorcooldownperiod: Duration = setting("How long waits stay long after an error.", default=span("0s"))
    transactiontimeout: Duration = setting("How long a batch of reviews may take.", default=span("10s"))
    reviewafter: Duration | None = setting(
        "Age at which something unused is reviewed, at least 10m. Not set: what the database says, at first 24h.",
        default=None,
    )
    shortdelays: Flag = setting("For tests: take a `gc.reviewafter` of less than 10m.", default=False)
    overdueafter: Duration = setting(
        "Unhealthy once something has been due for this long; 0 is never.", default=span("24h")
    )
    manifests: GcManifests = section(GcManifests, "Manifests.")
    blobs: GcBlobs = section(GcBlobs, "Blobs.")
    receipts: GcReceipts = section(GcReceipts, "Receipts of what was deleted.")

    @property
    def review_delay_seconds(self) -> float | None:
        """What `reviewafter` comes to. None: it is not set."""
        if self.reviewafter is None:
            return None
        return max(self.reviewafter.seconds, 0.0 if self.shortdelays else REVIEW_DELAY_SECONDS_MIN)


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
