"""``python -m aireiter_async``: the ``aireiter`` command where no script is installed."""

import sys

from aireiter_async.cli import main

sys.exit(main())
