"""What a ledger's file looks like inside.

The schema is for people too: ``sqlite3 run.db "select state, count(*) from tasks
group by state"``. ``user_version`` is the schema's number, ``application_id``
says that the file is a ledger of ours.
"""

import sqlite3
from datetime import UTC, datetime
from typing import Final

APPLICATION_ID: Final = 0x41524C47  # "ARLG"
USER_VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE batch (
    -- Drawn once: ids that the ledger draws depend on it, so no two ledgers draw the same.
    salt TEXT NOT NULL,
    -- UTC, ISO 8601.
    created_at TEXT NOT NULL
);
CREATE TABLE tasks (
    -- The order in which the requests were recorded.
    number INTEGER PRIMARY KEY,
    -- The id that the service knows the task by.
    out_task_id TEXT NOT NULL UNIQUE,
    -- Where in the input the request stood, from 0.
    position INTEGER NOT NULL,
    -- intended: may have been sent. submitted: accepted. completed, failed: ended.
    -- downloaded: completed, and the files are on disk. refused: certainly not accepted.
    -- uncertain: the answer was lost and the service could not be asked.
    state TEXT NOT NULL CHECK (state IN ('intended', 'submitted', 'completed', 'failed',
        'refused', 'uncertain', 'downloaded')),
    model TEXT NOT NULL,
    -- The request without its id, as JSON with sorted keys.
    request TEXT NOT NULL,
    -- Credits. NULL: the service did not say.
    estimated_credits REAL,
    credits_used REAL,
    -- The service's last answer about the task, as JSON.
    reply TEXT,
    -- Why it was refused or is uncertain: {"type", "message", "code"} as JSON.
    error TEXT,
    -- The files, as a JSON array.
    paths TEXT,
    -- The id of the task that was submitted in this one's place after it had failed.
    retried_as TEXT REFERENCES tasks (out_task_id),
    -- UTC, ISO 8601.
    updated_at TEXT NOT NULL
);
CREATE INDEX retries ON tasks (retried_as) WHERE retried_as IS NOT NULL;
"""


def timestamp() -> str:
    """Return the time as the columns have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def last_task(db: sqlite3.Connection) -> int:
    """Return the number of the last task, 0 if there is none."""
    last: int
    (last,) = db.execute("SELECT coalesce(max(number), 0) FROM tasks").fetchone()
    return last
