"""Detect file types by content: results of any type have been seen named ``.png``."""

import codecs
import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from aireiter_async._media._data_urls import is_data_url
from aireiter_async._text import MAX_URL

HEAD: Final = 4096  # bytes from the start of a file that identify its type

_BINARY: Final = ".bin"
_PLAIN_SUFFIX: Final = re.compile(r"\.[a-z0-9]{1,8}")

# The first type listed for a suffix is the one it is stored with.
_CONTENT_TYPES: Final = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/jpg": ".jpg",
    "image/pjpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/heif": ".heic",
    "image/jxl": ".jxl",
    "image/svg+xml": ".svg",
    "image/bmp": ".bmp",
    "image/x-ms-bmp": ".bmp",
    "image/tiff": ".tif",
    "image/x-icon": ".ico",
    "image/vnd.microsoft.icon": ".ico",
    "image/jp2": ".jp2",
    "image/vnd.adobe.photoshop": ".psd",
    "image/x-exr": ".exr",
    "video/mp4": ".mp4",
    "video/x-m4v": ".m4v",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "video/avi": ".avi",
    "video/x-ms-wmv": ".wmv",
    "video/x-flv": ".flv",
    "video/mpeg": ".mpg",
    "video/mp2t": ".ts",
    "video/3gpp": ".3gp",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aac": ".aac",
    "audio/aacp": ".aac",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/vnd.wave": ".wav",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/flac": ".flac",
    "audio/x-flac": ".flac",
    "audio/aiff": ".aiff",
    "audio/x-aiff": ".aiff",
    "audio/midi": ".mid",
    "audio/x-midi": ".mid",
    "audio/amr": ".amr",
    "audio/x-ms-wma": ".wma",
    "model/gltf-binary": ".glb",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "application/gzip": ".gz",
    "application/x-gzip": ".gz",
    "application/x-7z-compressed": ".7z",
    "application/vnd.rar": ".rar",
    "application/x-tar": ".tar",
    "application/zstd": ".zst",
    "text/plain": ".txt",
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/vtt": ".vtt",
    "application/x-subrip": ".srt",
    "text/csv": ".csv",
    "text/markdown": ".md",
    "application/json": ".json",
    "application/xml": ".xml",
    "text/xml": ".xml",
}
_TYPE_OF: Final = {suffix: kind for kind, suffix in reversed(_CONTENT_TYPES.items())}
_TEXTS: Final = frozenset(
    {".txt", ".html", ".vtt", ".srt", ".lrc", ".csv", ".md", ".json", ".xml", ".gltf", ".obj"}
)
_MARKUP: Final = frozenset({".html", ".json", ".xml"})

# The first pattern that matches the beginning of a file decides. ISO base media ("ftyp") and
# EBML (WebM, Matroska) are containers: the more specific patterns come first.
_SIGNATURES: Final = tuple(
    (re.compile(pattern, re.DOTALL), suffix)
    for pattern, suffix in (
        (rb"\x89PNG\r\n\x1a\n", ".png"),
        (rb"\xff\xd8\xff", ".jpg"),
        (rb"RIFF.{4}WEBP", ".webp"),
        (rb"GIF8", ".gif"),
        (rb".{4}ftyp(?:avif|avis|(?:mif1|msf1).{0,32}?avif)", ".avif"),
        (rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", ".heic"),
        (rb".{4}ftypM4[AB] ", ".m4a"),
        (rb".{4}ftypM4V", ".m4v"),
        (rb".{4}ftypqt", ".mov"),
        (rb".{4}ftyp3g", ".3gp"),
        (rb".{4}ftyp", ".mp4"),
        (rb".{4}(?:moov|mdat|wide|pnot)", ".mov"),  # QuickTime before it had a file type box
        (rb"\x1aE\xdf\xa3.{0,64}?matroska", ".mkv"),
        (rb"\x1aE\xdf\xa3", ".webm"),
        (rb"ID3", ".mp3"),
        (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][^\xf0-\xff]", ".mp3"),  # MPEG layer III without a tag
        (rb"\xff[\xf0\xf1\xf8\xf9]|ADIF", ".aac"),
        (rb"(?:RIFF|RF64).{4}WAVE", ".wav"),
        (rb"RIFF.{4}AVI ", ".avi"),
        (rb"OggS.{24}OpusHead", ".opus"),
        (rb"OggS", ".ogg"),
        (rb"fLaC", ".flac"),
        (rb"FORM.{4}AIF[FC]", ".aiff"),
        (rb"MThd", ".mid"),
        (rb"#!AMR", ".amr"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wmv"),
        (rb"FLV\x01", ".flv"),
        (rb"\0\0\x01[\xb3\xba]", ".mpg"),
        (rb"G.{187}G", ".ts"),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
        (rb"BM.{4}\0{4}", ".bmp"),
        (rb"II\*\0|MM\0\*", ".tif"),
        (rb"\0\0\x01\0[^\0]\0", ".ico"),
        (rb"8BPS\0", ".psd"),
        (rb"\x76\x2f\x31\x01", ".exr"),
        (rb"glTF", ".glb"),
        (rb"%PDF-", ".pdf"),
        (rb"PK(?:\x03\x04|\x05\x06)", ".zip"),
        (rb"\x1f\x8b\x08", ".gz"),
        (rb"7z\xbc\xaf\x27\x1c", ".7z"),
        (rb"Rar!\x1a\x07", ".rar"),
        (rb"\x28\xb5\x2f\xfd", ".zst"),
        (rb".{257}ustar", ".tar"),
        # The groups are atomic: thousands of comments must not cause backtracking.
        (
            (
                rb"(?:\xef\xbb\xbf)?\s*+"
                rb"(?:(?><\?xml.*?\?>|<!--.*?-->|(?i:<!doctype)\s+svg[^>]*>)\s*+)*+"
                rb"<(?:svg:)?svg[\s>]"
            ),
            ".svg",
        ),
    )
)
# If a signature shows only the container, a label of the same family is trusted.
_FAMILIES: Final = {
    ".mp4": frozenset({".m4a", ".m4v", ".mov", ".avif", ".heic", ".3gp"}),
    ".wmv": frozenset({".wma"}),
    ".ogg": frozenset({".opus"}),
}


def file_type(content_type: str, head: bytes, url: str) -> tuple[str, str]:
    """Choose a file's suffix, with its dot, and its content type.

    Args:
        content_type: The response's ``Content-Type``, possibly empty; used if the
            content does not show the type.
        head: The first bytes of the file.
        url: The file's URL, the last resort.
    """
    labelled = _CONTENT_TYPES.get(_bare(content_type))
    found = _sniff(head)
    if found is not None and labelled in _FAMILIES.get(found, ()):
        found = labelled
    suffix = found or labelled or url_suffix(url) or _BINARY
    return suffix, _TYPE_OF.get(suffix) or _bare(content_type) or "application/octet-stream"


def describe_page(content_type: str, head: bytes, url: str, kind: str) -> str | None:
    """Describe a file that is an error page rather than a result, such as "an HTML page".

    Hosts send error pages with any status and label, so the content decides.

    Args:
        content_type: The response's ``Content-Type``.
        head: The first bytes of the file.
        url: The file's URL.
        kind: The expected kind of output. Text is a result for ``text``, or if the URL has the
            suffix of a text file.

    Returns:
        None for a file that may be the result.
    """
    if not head or _sniff(head) is not None:
        return None
    labelled = _CONTENT_TYPES.get(_bare(content_type))
    found = _text_suffix(head) or (labelled if labelled in _MARKUP else None)
    ending = url_suffix(url)
    if (
        found is None
        or found == ending
        or (found != ".html" and (kind == "text" or ending in _TEXTS))
    ):
        return None
    names = {".html": "an HTML page", ".json": "a JSON document", ".xml": "an XML document"}
    return names.get(found, "text")


def url_suffix(url: str) -> str | None:
    """Return the lower-case suffix of a URL's path, or None if it has no plain one."""
    suffix = last_part(url).suffix.lower()
    return suffix if _PLAIN_SUFFIX.fullmatch(suffix) else None


def last_part(url: str) -> PurePosixPath:
    """Return the path of a URL, empty if it is invalid, too long or a data URL."""
    if is_data_url(url) or len(url) > MAX_URL:
        return PurePosixPath()
    try:
        return PurePosixPath(unquote(urlsplit(url).path))
    except ValueError:  # an invalid host: a download would fail as well
        return PurePosixPath()


def is_web_url(url: str) -> bool:
    """Return whether *url* is an http or https URL of reasonable length.

    Raises:
        ValueError: It is not a URL.
    """
    return len(url) <= MAX_URL and urlsplit(url).scheme in {"http", "https"}


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _sniff(head: bytes) -> str | None:
    return next((suffix for pattern, suffix in _SIGNATURES if pattern.match(head)), None)


def _text_suffix(head: bytes) -> str | None:
    """Return a suffix for text content, or None for binary content."""
    text = _decode(head)
    start = text.lstrip()[:1024].lower()
    if start.startswith("<"):
        return ".html" if re.search(r"<(!doctype\s+html|html|head|body|title)\b", start) else ".xml"
    if any(char < " " and char not in "\t\n\v\f\r\x1b" for char in text) or "\ufffd" in text:
        return None
    return ".json" if start.startswith(("{", "[")) else ".txt"


def _decode(head: bytes) -> str:
    encoding = "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(head)  # ignores a character cut off by the end of the head
