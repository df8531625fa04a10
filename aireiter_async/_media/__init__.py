"""Results: from a URL to a file or a sink."""

from aireiter_async._media._data_urls import read_data_url
from aireiter_async._media._files import Files, Owners
from aireiter_async._media._formats import file_type, is_data_url
from aireiter_async._media._names import NameTemplate, safe_stem, stem_of_url
from aireiter_async._media._results import EXPIRED, open_result
from aireiter_async._media._sink import Sink
from aireiter_async._media._threads import Threads

__all__ = [
    "EXPIRED",
    "Files",
    "NameTemplate",
    "Owners",
    "Sink",
    "Threads",
    "file_type",
    "is_data_url",
    "open_result",
    "read_data_url",
    "safe_stem",
    "stem_of_url",
]
