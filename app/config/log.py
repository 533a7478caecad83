"""`log`: what is written, how, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from app.config.section import Section, Status, section, setting
from app.config.values import Flag, FreeMap, Text, Texts, folded

Level = Annotated[Literal["error", "warn", "info", "debug", "trace"], folded()]
LineFormat = Annotated[Literal["text", "json"], folded(("logstash", "json"))]
Output = Annotated[Literal["stdout", "stderr"], folded()]


class AccessLog(Section):
    """`log.accesslog`."""

    disabled: Flag = setting("Write no access log.", default=False)
    formatter: LineFormat = setting(
        "`text` (Apache's combined format) or `json`. The access log goes to standard output.", default="text"
    )


class Hook(Section):
    """An item of `log.hooks`."""

    disabled: Flag = setting("Leave this hook out.", default=False)
    type: Text = setting("`mail`, the only kind there is.", default="")
    levels: Texts = setting("Log levels that set it off.", default=())
    options: FreeMap = setting("Mail server, sender and recipients.", default={}, hidden=True)


class Log(Section):
    """`log`."""

    level: Level = setting(
        "`error`, `warn`, `info`, `debug` or `trace` (the same as `debug`).", default="info"
    )
    formatter: LineFormat = setting("`text` or `json`; `logstash` is `json`.", default="text")
    output: Output = setting("Where the application log goes: `stdout` or `stderr`.", default="stderr")
    fields: FreeMap = setting("Fields added to every line.", default={})
    accesslog: AccessLog = section(AccessLog, "One line per request.")
    hooks: tuple[Hook, ...] = setting("Mail on log lines.", default=(), status=Status.LATER)
    reportcaller: Flag = setting(
        "Names the place in Distribution's source that logged a line.", default=False, status=Status.IGNORED
    )
