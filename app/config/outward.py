"""`notifications`, `proxy`, `middleware`, `reporting` and `profiling`: what reaches out to other services."""

from __future__ import annotations

from app.config.section import Section, section, setting
from app.config.values import NO_SECRET, Duration, Flag, FreeMap, Secret, Text, Texts, Whole, span


class Events(Section):
    """`notifications.events`."""

    includereferences: Flag = setting("Include what a manifest refers to.", default=False)


class Ignore(Section):
    """`notifications.endpoints[].ignore`."""

    mediatypes: Texts = setting("Media types that are left out.", default=())
    actions: Texts = setting("Actions that are left out.", default=())


class Endpoint(Section):
    """An item of `notifications.endpoints`."""

    name: Text = setting("Name.", default="")
    disabled: Flag = setting("Send it nothing.", default=False)
    url: Text = setting("URL that events are posted to.", default="", hidden=True)
    headers: dict[str, Texts] = setting("Headers of each request.", default={}, hidden=True)
    timeout: Duration = setting("How long one request may take.", default=span("1s"))
    threshold: Whole = setting("Failures in a row after which to wait.", default=10)
    backoff: Duration = setting("That wait.", default=span("1s"))
    maxretries: Whole = setting("Tries after which an event is given up.", default=10)
    queuepurgetimeout: Duration = setting("How long to go on sending at shutdown.", default=span("5s"))
    queuesizelimit: Whole = setting("Events that may wait.", default=3000)
    ignoredmediatypes: Texts = setting("The old form of `ignore.mediatypes`.", default=())
    ignore: Ignore = section(Ignore, "What is left out.")


class Notifications(Section):
    """`notifications`."""

    fanouttimeout: Duration = setting(
        "How long the shutdown waits for what is still to be sent.", default=span("15s")
    )
    events: Events = section(Events, "Content of events.")
    endpoints: tuple[Endpoint, ...] = setting("Who is told.", default=())


class ProxyExec(Section):
    """`proxy.exec`."""

    command: Text = setting("Credential helper.", default="")
    lifetime: Duration = setting("How long what it says holds.", default=span("0s"))


class Proxy(Section):
    """`proxy`."""

    remoteurl: Text = setting("Registry that is mirrored.", default="", hidden=True)
    username: Text = setting("User there.", default="")
    password: Secret = setting("Password there.", default=NO_SECRET)
    exec: ProxyExec = section(ProxyExec, "A credential helper.")
    ttl: Duration = setting("How long content is kept; 0 is for ever.", default=span("168h"))
    cachewritetimeout: Duration = setting("How long storing what was fetched may take.", default=span("5m"))
    remotenamespace: Text = setting("Prefix of every repository there.", default="")


class Middleware(Section):
    """An item of a list below `middleware`."""

    name: Text = setting("`cloudfront`, `googlecdn`, `redirect`, `rewrite` or `urlcache`.", default="")
    disabled: Flag = setting("Leave it out.", default=False)
    options: FreeMap = setting("Its own parameters.", default={}, hidden=True)


class Middlewares(Section):
    """`middleware`."""

    registry: tuple[Middleware, ...] = setting("Around the registry.", default=())
    repository: tuple[Middleware, ...] = setting("Around repositories.", default=())
    storage: tuple[Middleware, ...] = setting("Around the storage.", default=())


class Bugsnag(Section):
    """`reporting.bugsnag`."""

    apikey: Secret = setting("API key.", default=NO_SECRET)
    releasestage: Text = setting("Stage of the release.", default="")
    endpoint: Text = setting("Another Bugsnag.", default="")


class NewRelic(Section):
    """`reporting.newrelic`."""

    licensekey: Secret = setting("License key.", default=NO_SECRET)
    name: Text = setting("Name of the application.", default="")
    verbose: Flag = setting("Log what is reported.", default=False)


class Sentry(Section):
    """`reporting.sentry`."""

    enabled: Flag = setting("Report errors.", default=False)
    dsn: Secret = setting("DSN.", default=NO_SECRET)
    environment: Text = setting("Name of the environment.", default="")


class Reporting(Section):
    """`reporting`."""

    bugsnag: Bugsnag = section(Bugsnag, "Bugsnag.")
    newrelic: NewRelic = section(NewRelic, "New Relic.")
    sentry: Sentry = section(Sentry, "Sentry.")


class Stackdriver(Section):
    """`profiling.stackdriver`."""

    enabled: Flag = setting("Send profiles.", default=False)
    service: Text = setting("Name of the service.", default="")
    serviceversion: Text = setting("Its version.", default="")
    projectid: Text = setting("Project.", default="")
    keyfile: Text = setting("File with the service account's key.", default="")


class Profiling(Section):
    """`profiling`."""

    stackdriver: Stackdriver = section(Stackdriver, "Google Cloud Profiler.")
