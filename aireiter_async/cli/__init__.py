"""The ``aireiter`` command; needs the extra ``cli`` (cyclopts and rich).

``_run`` runs one command line: ``_app`` parses it, and the command it names (in ``_tasks``,
``_models``, ``_batch``, ``_page``, ``_doctor`` or ``_demo``) writes through an `Output`. ``_app``
and ``_options`` import cyclopts, ``_display`` imports rich.
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]

_BAD_USAGE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: The arguments; None for those of this process.

    Returns:
        0: success; for a batch, all tasks succeeded.
        1: the service, a task or a check failed.
        2: invalid usage or input; nothing was sent.
        3: a batch is unfinished.
        4: a batch reached ``--max-credits``.
        5: the account or this machine stopped a batch (key, credits, disk).
        130: interrupted (Ctrl-C or SIGTERM).
        141: standard output was closed (SIGPIPE).
    """
    try:
        from aireiter_async.cli._run import run  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"cyclopts", "rich"}:
            raise
        hint = 'pip install "aireiter-async[cli]"'
        sys.stderr.write(f"aireiter: {error.name} is missing: {hint}\n")
        return _BAD_USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return run(sys.argv[1:] if argv is None else argv)
