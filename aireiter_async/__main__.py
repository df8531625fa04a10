"""Run the ``aireiter`` command as ``python -m aireiter_async``."""

import sys

from aireiter_async.cli import main

sys.exit(main())
