"""``python -m aireiter_async.testing``: run a FakeService until stopped."""

import sys

from aireiter_async.testing._program import main

sys.exit(main())
