"""Media: a result's URL to a file."""

from aireiter_async._media._data_urls import read_data_url
from aireiter_async._media._files import Files
from aireiter_async._media._formats import file_type, is_data_url
from aireiter_async._media._names import check_name, safe_stem, stem_of_url
from aireiter_async._media._results import EXPIRED, open_result

__all__ = [
    "EXPIRED",
    "Files",
    "check_name",
    "file_type",
    "is_data_url",
    "open_result",
    "read_data_url",
    "safe_stem",
    "stem_of_url",
]
