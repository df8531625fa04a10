"""Media: download results to files or sinks, convert local files to data URLs."""

from aireiter_async._media._data_urls import is_data_url, read_data_url
from aireiter_async._media._files import Files
from aireiter_async._media._formats import HEAD, file_type
from aireiter_async._media._local import (
    can_convert,
    data_url,
    read_local,
    thumbnail,
)
from aireiter_async._media._names import NameTemplate, quote_name, safe_stem, stem_of_url
from aireiter_async._media._results import EXPIRED, Result, open_result
from aireiter_async._media._saved import Digest, Found, Saved, find_saved
from aireiter_async._media._sink import Sink

__all__ = [
    "EXPIRED",
    "HEAD",
    "Digest",
    "Files",
    "Found",
    "NameTemplate",
    "Result",
    "Saved",
    "Sink",
    "can_convert",
    "data_url",
    "file_type",
    "find_saved",
    "is_data_url",
    "open_result",
    "quote_name",
    "read_data_url",
    "read_local",
    "safe_stem",
    "stem_of_url",
    "thumbnail",
]
