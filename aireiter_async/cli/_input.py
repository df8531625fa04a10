"""The input file of a batch: opened, decompressed, its format and its encoding."""

import gzip
import reprlib
import shutil
import tempfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast, get_args

from aireiter_async.cli._errors import UsageError, reason
from aireiter_async.cli._options import Format
from aireiter_async.cli._params import STDIN, stdin

_SUFFIXES: Final[Mapping[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "txt",
}
_GZIP: Final = b"\x1f\x8b"
_FOREIGN: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a spreadsheet or ZIP file: save it as CSV",
    b"PAR1": "a Parquet file: save it as JSON Lines or CSV",
    b"SQLite format 3": "an SQLite database, perhaps a ledger: name the file of requests",
    b"%PDF": "a PDF file",
    b"\xfd7zXZ": "compressed with xz: use gzip, or decompress it",
    b"BZh": "compressed with bzip2: use gzip, or decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: use gzip, or decompress it",
}
_BYTE_ORDER_MARKS: Final[Mapping[bytes, str]] = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_PEEK: Final = 4096  # bytes


@contextmanager
def open_input(name: str) -> Generator[tuple[IO[bytes], bool], None, None]:
    """Open the file *name*, or standard input for ``-``, and decompress it.

    Yields:
        The file, and whether it is a regular one; any other is copied to a temporary file.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        file = stdin() if name == STDIN else Path(name).open("rb")  # noqa: SIM115
        regular = name != STDIN and Path(name).is_file()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {reason(error)}") from error
    with tempfile.TemporaryFile() if not regular else file as seekable:
        if not regular:
            shutil.copyfileobj(file, seekable)
            if name != STDIN:
                file.close()
            seekable.seek(0)
        compressed = seekable.read(2) == _GZIP
        seekable.seek(0)
        opened = gzip.GzipFile(fileobj=seekable) if compressed else seekable
        yield cast("IO[bytes]", opened), regular


def detect(name: str, file: IO[bytes], format_: Format | None) -> tuple[Format, str]:
    """Return the format and the encoding of *file*.

    Args:
        name: The file's name, for its suffix.
        file: The file.
        format_: The format, if the user gave it.

    Raises:
        UsageError: The format is not supported or unclear.
    """
    try:
        start = file.read(_PEEK)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{name} cannot be read: {reason(error)}") from error
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise UsageError(f"{name} is {what}")
    encoding = next(
        (each for mark, each in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8"
    )
    if b"\0" in start and encoding != "utf-16":
        raise UsageError(f"{name} is not text: it contains NUL bytes; save it as UTF-8")
    text = start.decode(encoding, errors="ignore").lstrip()
    found = format_ or _SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix)
    if found is None and text[:1] in {"{", "["}:
        found = "json" if text[0] == "[" else "jsonl"
    if found is None:
        *others, last = get_args(Format)
        raise UsageError(
            f"the format of {'standard input' if name == STDIN else name} is unclear; "
            f"add --format {', '.join(others)} or {last}"
        )
    if format_ is None and found in {"csv", "tsv", "txt"} and text[:1] == "{":
        raise UsageError(
            f"{name} looks like JSON Lines; rename it, or add --format jsonl or {found}"
        )
    if found == "jsonl" and text[:1] not in {"{", "["} and text:
        line = reprlib.repr(text.splitlines()[0])
        raise UsageError(
            f"{name} is not JSON Lines: it starts with {line}; for a table add --format csv, "
            "for one prompt per line --format txt"
        )
    if found == "json" and text[:1] != "[":
        raise UsageError(f"{name} is not a JSON array; for one object per line add --format jsonl")
    return ("json" if found == "jsonl" and text[:1] == "[" else found), encoding
