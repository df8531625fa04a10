"""The environment variable ``AIREITER_LOG``, which shows the package's log on standard error."""

import logging
import os
from typing import Any, Final

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO}

_log = logging.getLogger("aireiter_async")


class _Stderr(logging.StreamHandler[Any]):
    """Writes to standard error, unless the application handles the package's log itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if [*_log.handlers, *logging.getLogger().handlers] == [self]:
            super().emit(record)


def read_level() -> int | None:
    """Return the level that ``AIREITER_LOG`` asks for, None if it is not set.

    Raises:
        ValueError: There is no such level.
    """
    value = os.environ.get("AIREITER_LOG", "").strip()
    if not value:
        return None
    level = _LEVELS.get(value.lower())
    if level is None:
        raise ValueError(f"AIREITER_LOG must be debug or info, got {value!r}")
    return level


def start_logging() -> None:
    """Show the package's log if ``AIREITER_LOG`` is set.

    Raises:
        ValueError: It is not a level.
    """
    level = read_level()
    if level is None:
        return
    _log.setLevel(min(level, _log.level or level))  # the application may want more
    if not any(isinstance(each, _Stderr) for each in _log.handlers):
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _log.addHandler(handler)
