"""The ``aireiter`` command; needs the extra ``cli`` (cyclopts and rich).

`main` parses (``_app``, the room with cyclopts), then runs what was asked for
(``_run``) with a `Report` that knows where things are said: documents on
standard output, messages on standard error (``_display`` is the room with rich).
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]

_BAD_USAGE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, and return its exit status.

    Args:
        argv: What follows the program's name; None: what this process was given.

    Returns:
        0 when it is done, 1 when the service or a task failed, 2 for bad usage
        or input, 3 when a batch was interrupted, 4 when it has reached its
        budget, 130 when anything else was interrupted, 141 when nobody reads
        the output.
    """
    try:
        from aireiter_async.cli._run import run  # noqa: PLC0415 - it needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "aireiter_async":
            raise
        hint = 'pip install "aireiter-async[cli]"'
        sys.stderr.write(f"aireiter: {error.name} is missing: {hint}\n")
        return _BAD_USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return run(sys.argv[1:] if argv is None else argv)
