"""Results on disk: named for what they are, and whole or not there at all."""

import asyncio
import base64
import gzip
import multiprocessing
import os
import resource
import shutil
import stat
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import brotli
import filetype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async._media import (
    Files,
    NameTemplate,
    file_type,
    is_data_url,
    read_data_url,
    safe_stem,
    stem_of_url,
)
from aireiter_async._media._encodings import make_decoder
from aireiter_async._media._files import create
from aireiter_async._media._formats import describe_page, is_web_url
from aireiter_async._threads import Threads

BLOCK = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def iso(brand: bytes, *more: bytes) -> bytes:
    """Make the first box of an ISO base media file."""
    content = brand + bytes(4) + b"".join(more)
    return (len(content) + 8).to_bytes(4) + b"ftyp" + content


# What each begins with, its suffix, and its type for a store.
HEADS: list[tuple[bytes, str, str]] = [
    (b"\x89PNG\r\n\x1a\n", ".png", "image/png"),
    (b"\xff\xd8\xff\xe0", ".jpg", "image/jpeg"),
    (b"\xff\xd8\xff\xe1\x00\x10Exif", ".jpg", "image/jpeg"),
    (b"RIFF\x00\x00\x00\x00WEBPVP8 ", ".webp", "image/webp"),
    (b"GIF89a", ".gif", "image/gif"),
    (iso(b"avif"), ".avif", "image/avif"),
    (iso(b"mif1", b"miaf", b"avif"), ".avif", "image/avif"),
    (iso(b"heic"), ".heic", "image/heic"),
    (iso(b"heix", b"mif1"), ".heic", "image/heic"),
    (iso(b"mif1", b"heic"), ".heic", "image/heic"),
    (b"\xff\x0a\xfa\x1f", ".jxl", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", ".jxl", "image/jxl"),
    (b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00", ".bmp", "image/bmp"),
    (b"II*\x00\x08\x00", ".tif", "image/tiff"),
    (b"MM\x00*\x00\x00", ".tif", "image/tiff"),
    (b"\x00\x00\x01\x00\x01\x00\x10\x10", ".ico", "image/x-icon"),
    (b"8BPS\x00\x01", ".psd", "image/vnd.adobe.photoshop"),
    (iso(b"isom"), ".mp4", "video/mp4"),
    (iso(b"mp42", b"isom"), ".mp4", "video/mp4"),
    (iso(b"M4V "), ".m4v", "video/x-m4v"),
    (iso(b"M4A "), ".m4a", "audio/mp4"),
    (iso(b"qt  "), ".mov", "video/quicktime"),
    (b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat", ".mov", "video/quicktime"),
    (iso(b"3gp5"), ".3gp", "video/3gpp"),
    (b"\x1aE\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", ".webm", "video/webm"),
    (
        b"\x1aE\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x88matroska",
        ".mkv",
        "video/x-matroska",
    ),
    (b"RIFF\x00\x00\x00\x00AVI LIST", ".avi", "video/x-msvideo"),
    (b"FLV\x01\x05", ".flv", "video/x-flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", ".wmv", "video/x-ms-wmv"),
    (b"\x00\x00\x01\xba\x44", ".mpg", "video/mpeg"),
    ((b"G" + bytes(187)) * 3, ".ts", "video/mp2t"),
    (b"ID3\x04", ".mp3", "audio/mpeg"),
    (b"\xff\xfb\x90\x64", ".mp3", "audio/mpeg"),
    (b"\xff\xf3\x84\xc4", ".mp3", "audio/mpeg"),
    (b"\xff\xf2\x84\xc4", ".mp3", "audio/mpeg"),
    (b"\xff\xfa\x92\x00", ".mp3", "audio/mpeg"),
    (b"\xff\xe3\x18\xc4", ".mp3", "audio/mpeg"),
    (b"\xff\xf1\x50\x80", ".aac", "audio/aac"),
    (b"\xff\xf9\x50\x80", ".aac", "audio/aac"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", ".wav", "audio/wav"),
    (b"RF64\xff\xff\xff\xffWAVEds64", ".wav", "audio/wav"),
    (b"OggS\x00\x02" + bytes(22) + b"OpusHead", ".opus", "audio/opus"),
    (b"OggS\x00\x02" + bytes(22) + b"\x01vorbis", ".ogg", "audio/ogg"),
    (b"fLaC", ".flac", "audio/flac"),
    (b"FORM\x00\x00\x00\x00AIFF", ".aiff", "audio/aiff"),
    (b"MThd\x00\x00", ".mid", "audio/midi"),
    (b"#!AMR\n", ".amr", "audio/amr"),
    (b"glTF\x02\x00", ".glb", "model/gltf-binary"),
    (b"%PDF-1.7\n", ".pdf", "application/pdf"),
    (b"PK\x03\x04\x14", ".zip", "application/zip"),
    (b"\x1f\x8b\x08\x00", ".gz", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", ".7z", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07\x01", ".rar", "application/vnd.rar"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ".svg", "image/svg+xml"),
    (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a --><!DOCTYPE svg PUBLIC 'x'>\n<svg>",
        ".svg",
        "image/svg+xml",
    ),
]
OTHERWISE_IN_FILETYPE = {".opus": ".ogg", ".mid": ".midi"}


async def pieces(
    chunks: Iterable[bytes],
    meanwhile: Callable[[], object] = lambda: None,
    error: BaseException | None = None,
) -> AsyncIterator[bytes]:
    """Yield *chunks*, call *meanwhile* before each and at the end, then fail with *error*."""
    for chunk in chunks:
        meanwhile()
        yield chunk
        await asyncio.sleep(0)
    meanwhile()
    if error is not None:
        raise error


def files(directory: Path) -> list[str]:
    """Return the names of all that is in a directory."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond *size* bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("content_type", "suffix"),
    [
        ("image/png", ".png"),
        ("image/jpeg", ".jpg"),
        ("image/webp", ".webp"),
        ("image/gif", ".gif"),
        ("image/avif", ".avif"),
        ("image/svg+xml", ".svg"),
        ("video/mp4", ".mp4"),
        ("video/quicktime", ".mov"),
        ("video/webm", ".webm"),
        ("audio/mpeg", ".mp3"),
        ("audio/mp3", ".mp3"),
        ("audio/mp4", ".m4a"),
        ("audio/x-m4a", ".m4a"),
        ("audio/wav", ".wav"),
        ("audio/x-wav", ".wav"),
        ("audio/ogg", ".ogg"),
        ("audio/flac", ".flac"),
        ("application/zip", ".zip"),
        ("application/x-zip-compressed", ".zip"),
        ("text/plain; charset=utf-8", ".txt"),
        (" Image/PNG ;q=1", ".png"),
    ],
)
def test_the_content_type_names_the_suffix(content_type: str, suffix: str) -> None:
    """Where the bytes do not tell, the type does, whatever the URL ends in."""
    assert file_type(content_type, b"\x01\x02?", "https://h/a.bmp")[0] == suffix


@pytest.mark.parametrize(("head", "suffix", "kind"), HEADS, ids=lambda value: repr(value)[:24])
def test_the_first_bytes_decide(head: bytes, suffix: str, kind: str) -> None:
    """The file itself says what it is, whatever the host calls it."""
    for label in (
        "",
        "application/octet-stream",
        "image/png",
        "video/webm",
        "text/plain",
        "text/html",
    ):
        assert file_type(label, head + bytes(50), "https://h/a.bmp") == (suffix, kind)
        assert describe_page(label, head + bytes(50), "https://h/a", "image") is None


@pytest.mark.parametrize(("head", "suffix"), [(head, suffix) for head, suffix, _ in HEADS])
def test_another_library_agrees(head: bytes, suffix: str) -> None:
    """Filetype's responses, where it has one, are ours."""
    found = filetype.guess(head + bytes(300))
    if found is not None:
        assert f".{found.extension}" == OTHERWISE_IN_FILETYPE.get(suffix, suffix)


@pytest.mark.parametrize(
    ("content_type", "suffix"),
    [
        ("audio/mp4", ".m4a"),
        ("audio/x-m4a", ".m4a"),
        ("video/quicktime", ".mov"),
        ("image/avif", ".avif"),
        ("video/mp4", ".mp4"),
        ("video/webm", ".mp4"),
        ("image/png", ".mp4"),
        ("", ".mp4"),
    ],
)
def test_of_iso_media_the_type_tells_which(content_type: str, suffix: str) -> None:
    """Sound, film and picture share one container: a type of that family is believed."""
    assert file_type(content_type, iso(b"isom"), "https://h/a")[0] == suffix
    assert file_type(content_type, iso(b"qt  "), "https://h/a")[0] == ".mov"


@pytest.mark.parametrize(
    ("url", "suffix"),
    [
        ("https://h/a.PSD", ".psd"),
        ("https://h/a.psd?x=.gif#.exe", ".psd"),
        ("https://h/a.tar.gz", ".gz"),
        ("https://h/a", ".bin"),
        ("https://h/.hidden", ".bin"),
        ("https://h/a.", ".bin"),
        ("https://h", ".bin"),
        ("", ".bin"),
        ("https://h/a." + "x" * 300, ".bin"),
        ("https://h/a.b c", ".bin"),
        ("https://h/a.%2e%2e%2fb", ".bin"),
        ("https://h/a.p\\..\\..\\b", ".bin"),
        ("https://h/a.\xe9", ".bin"),
        ("https://h/a.p%00", ".bin"),
        ("https://[h/a.psd", ".bin"),
        ("data:image/x,a.psd", ".bin"),
        ("https://h/" + "a" * 70_000 + ".psd", ".bin"),
    ],
)
def test_the_url_is_the_last_resort(url: str, suffix: str) -> None:
    """A URL's plain suffix will do where nothing else tells, and nothing odd gets into a name."""
    assert file_type("", b"????", url)[0] == suffix


PAGES = [
    (b"<!DOCTYPE html><html><head>", "an HTML page"),
    (b"\n  <html lang=en>", "an HTML page"),
    (b"\xef\xbb\xbf<!doctype HTML>", "an HTML page"),
    (b"<html><body>caf\xe9</body>", "an HTML page"),
    ("<html>".encode("utf-16"), "an HTML page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "an XML document"),
    (b"<!-- a page about --><svgs/>", "an XML document"),
    (b"<!---->" * 580, "an XML document"),
    (b'{"error": {"code": 404}}', "a JSON document"),
    (b' [{"a": 1}]', "a JSON document"),
    (b"error code: 1015", "text"),
    ("\u627e\u4e0d\u5230".encode(), "text"),
    ("\u627e\u4e0d\u5230".encode()[:-1], "text"),
    ("Not found".encode("utf-16"), "text"),
]


@pytest.mark.parametrize(("head", "page"), PAGES, ids=lambda value: repr(value)[:32])
@pytest.mark.parametrize("label", ["", "image/png", "application/octet-stream", "text/plain"])
def test_a_page_is_no_media(head: bytes, page: str, label: str) -> None:
    for kind in ("image", "video", "audio", "file"):
        assert describe_page(label, head, "https://h/a.png", kind) == page


@pytest.mark.parametrize(
    ("label", "head", "url", "kind", "page"),
    [
        ("text/plain", b"La la la", "https://h/a", "text", None),
        ("text/plain", b"La la la", "https://h/a.txt", "file", None),
        ("", b"1\n00:00:01,000 --> 00:00:04,000\nLa", "https://h/a.SRT?x=1", "file", None),
        ("", b'{"lyrics": "La"}', "https://h/a.json", "file", None),
        ("", b'{"lyrics": "La"}', "https://h/a", "text", None),
        ("", b"<html>", "https://h/a.txt", "text", "an HTML page"),
        ("", b"<html>", "https://h/a.html", "file", None),
        ("text/html", b"\x00\x01\x02\x03", "https://h/a", "image", "an HTML page"),
        ("application/json", b"\x00\x01\x02\x03", "https://h/a", "image", "a JSON document"),
        ("image/png", b"\x00\x01\x02\x03", "https://h/a", "image", None),
        ("", bytes(100), "https://h/a.pcm", "audio", None),
        ("", b"", "https://h/a", "image", None),
    ],
)
def test_texts_are_results_where_texts_are_expected(
    label: str, head: bytes, url: str, kind: str, page: str | None
) -> None:
    assert describe_page(label, head, url, kind) == page


@pytest.mark.parametrize(
    ("url", "stem"),
    [
        ("https://s1.pxz.ai/upload/kitten-1.png", "kitten-1"),
        ("https://h/a/b/c.tar.gz?x=/y.png", "c.tar"),
        ("https://h/%E7%8C%AB.png", "\u732b"),
        ("https://h/a%20b%2Bc.png", "a b+c"),
        ("../../x", "x"),
        ("https://h/../../etc/passwd", "passwd"),
        ("https://h/%2e%2e%2f", "output"),
        ("https://h/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "passwd"),
        ("https://h/..", "output"),
        ("https://h/..%5c..%5cx.png", "_.._x"),
        ("https://h/.bashrc", "bashrc"),
        ("https://h/C:x.png", "C_x"),
        ("https://h/a%00b.png", "a_b"),
        ("https://h/a\ud800b.png", "a_b"),
        ("https://h/", "output"),
        ("https://h", "output"),
        ("", "output"),
        ("https://[h/a.png", "output"),
        ("Last Train Home", "Last Train Home"),
        ("data:image/png;base64,AAAA/kitten.png", "output"),
        ("https://h/kitten" + "/" * 70_000 + "a.png", "output"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_the_stem_of_a_url(url: str, stem: str) -> None:
    assert stem_of_url(url) == stem


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("kitten", "kitten"),
        ("a fox.", "a fox"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Nul ", "_Nul"),
        ("LPT1.tar.gz", "_LPT1.tar.gz"),
        ("COM\u00b9", "_COM\u00b9"),
        ("CONIN$", "_CONIN$"),
        ("COM10", "COM10"),
        ("console", "console"),
        ("../../.ssh/keys", "_.._.ssh_keys"),
        ("C:\\temp\\x", "C__temp_x"),
        ('<a href="b">?*|', "_a href=_b_____"),
        ("a\nb\x1b[31m\x7f\x9b", "a_b_[31m__"),
        ("\u202egnp.exe\u200f", "_gnp.exe_"),
        ("  .hidden. ", "hidden"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("\ud83d", "_"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("", "output"),
        (" . ", "output"),
        ("x" * 300, "x" * 200),
        ("\U0001f600" * 64, "\U0001f600" * 50),
        ("\u732b" * 100, "\u732b" * 66),
        ("x" * 197 + "\U0001f469\u200d\U0001f52c", "x" * 197),
        ("x" * 198 + "e\u0323\u0301" * 3, "x" * 198),
        ("x" * 195 + "\U0001f44d\U0001f3fd", "x" * 195),
        ("\u0301" * 200, "output"),
        ("x" * 198 + " .yz", "x" * 198),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_stem_is_safe_on_every_system(text: str, stem: str) -> None:
    assert safe_stem(text) == stem


@given(st.text() | st.text("./\\%2eE5cfF0~:\0 \u732bCON"))
def test_no_stem_leads_elsewhere(text: str) -> None:
    for stem in (safe_stem(text), stem_of_url(f"https://h/{text}")):
        assert stem == Path(stem).name == stem.strip(" .")
        assert not set(stem) & set('<>:"/\\|?*\0\n')
        assert 0 < len(stem.encode()) <= 201
        assert safe_stem(stem) == stem


FIELDS: dict[str, object] = {
    "index": 7,
    "prompt": "A red fox, asleep. Oil on canvas",
    "model": "veo3_1",
    "out_task_id": "fox-1",
    "n": 2,
    "score": 0.5,
    "note": None,
    "\u540d\u524d": "\u732b",
}


@pytest.mark.parametrize(
    ("template", "stem"),
    [
        ("kitten", "kitten"),
        ("{index:04}-{prompt:.9}", "0007-A red fox"),
        ("{prompt:.10}_{n}", "A red fox,_2"),
        ("{prompt:.18}", "A red fox, asleep"),
        ("{index:4}|", "7_"),
        ("[{model:10}]", "[veo3_1    ]"),
        ("{model:10.3}x", "veo       x"),
        ("{score:05}{note:.3}", "000.5"),
        ("{out_task_id}.{n:02}", "fox-1.02"),
        ("{{index}} {index}", "{index} 7"),
        ("{\u540d\u524d}", "\u732b"),
        ("{note}", "output"),
        ("a.b", "a.b"),
        ("x" * 251, "x" * 200),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_name_template(template: str, stem: str) -> None:
    assert NameTemplate(template).stem(FIELDS) == stem


def test_a_template_cuts_between_characters() -> None:
    """A maximum length counts code points, but keeps those together that are one character."""
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    for most, kept in ((1, "\u732b"), (2, "\u732b"), (5, "\u732b"), (6, f"\u732b{family}")):
        template = NameTemplate(f"{{prompt:.{most}}}")
        assert template.stem({"prompt": f"\u732b{family}e\u0301"}) == kept


@pytest.mark.parametrize(
    "name",
    [
        "{task.__init__.__globals__}",
        "{model.__class__}",
        "{prompt[0]}",
        "{}",
        "{0}",
        "{ prompt }",
        "{prompt!r}",
        "{prompt:>30}",
        "{prompt:{n}}",
        "{prompt:s}",
        "{index:x}",
        "{index:1000}",
        "{prompt:.0}",
        "{prompt:.1000}",
        "{prompt:,}",
        "{prompt-1}",
    ],
)
def test_a_field_has_a_name_a_width_and_a_length_only(name: str) -> None:
    with pytest.raises(ValueError, match="name may have fields such as"):
        NameTemplate(name)


@pytest.mark.parametrize("name", ["{prompt", "prompt}", "{prompt:.30", "{"])
def test_a_template_that_cannot_be_read(name: str) -> None:
    with pytest.raises(ValueError, match="name is not a template"):
        NameTemplate(name)


@pytest.mark.parametrize(
    "name", ["a/b", "/etc/passwd", "../a", "a/", "", ".", "..", " ", "a\\b", "{n}/{prompt}"]
)
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a file name without a directory"):
        NameTemplate(name)


@pytest.mark.parametrize("name", [b"a", 1, Path("a")])
def test_a_name_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str or a function"):
        NameTemplate(name)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"no field promt, seed; the fields are .*index, model, n"):
        NameTemplate("{promt}-{seed}-{n}").check(FIELDS)


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads()
    yield threads
    threads.close()


@pytest.fixture
def store(threads: Threads) -> Files:
    return Files(threads)


async def save(
    store: Files,
    chunks: AsyncIterator[bytes] | bytes,
    folder: Path,
    stem: str = "a",
    *,
    owner: str = "",
    replace: bool = False,
) -> Path:
    """Save *chunks* as a PNG."""
    content = pieces([chunks]) if isinstance(chunks, bytes) else chunks
    return await store.save(content, folder, stem, ".png", owner=owner, replace=replace)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"x"],
        [b"x", b"", b"yz"],
        [b"x" * BLOCK],
        [b"x" * (BLOCK - 1), b"yz"],
        [b"x" * BLOCK, b"y" * BLOCK, b"z"],
        [bytes([n % 256]) * 70_000 for n in range(50)],
        [b"x" * (5 * BLOCK + 1)],
    ],
    ids=lambda chunks: f"{len(chunks)}-{sum(map(len, chunks))}",
)
async def test_all_chunks_arrive_in_order(
    store: Files, tmp_path: Path, chunks: list[bytes]
) -> None:
    path = await save(store, pieces(chunks), tmp_path / "new" / "deep", "kitten")
    assert path == tmp_path / "new" / "deep" / "kitten.png"
    assert path.read_bytes() == b"".join(chunks)
    assert files(path.parent) == ["kitten.png"]


async def test_a_file_appears_once_it_is_whole(store: Files, tmp_path: Path) -> None:
    """Until the last byte is written there is only a hidden partial file, and the old one stays."""
    target = tmp_path / "kitten.png"
    target.write_bytes(b"old")
    seen: list[list[str]] = []

    def look() -> None:
        assert target.read_bytes() == b"old"
        seen.append(files(tmp_path))

    chunks = pieces([b"x" * BLOCK] * 3, look)
    await save(store, chunks, tmp_path, "kitten", replace=True)
    assert seen == [["kitten.png"]] + [[".kitten.part", "kitten.png"]] * 3
    assert target.read_bytes() == b"x" * 3 * BLOCK
    assert files(tmp_path) == ["kitten.png"]


async def test_a_file_is_on_disk_before_it_has_its_name(
    store: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the calls to the system shows this, short of a power cut."""
    synced: list[tuple[int | str, list[str]]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        what = "folder" if stat.S_ISDIR(found.st_mode) else found.st_size
        synced.append((what, files(tmp_path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await save(store, b"whole", tmp_path, "kitten")
    assert synced == [(len(b"whole"), [".kitten.part"]), ("folder", ["kitten.png"])]


def no_links(_partial: Path, _target: Path) -> None:
    """Fail like a file system without hard links."""
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("link", [os.link, no_links])
async def test_a_file_that_is_removed_while_it_is_written_leaves_nothing(
    threads: Threads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    link: Callable[[Path, Path], None],
) -> None:
    """As by a program that cleans up: no empty file stays under the name of the result."""
    monkeypatch.setattr(os, "fsync", lambda _: (tmp_path / ".kitten.part").unlink(missing_ok=True))
    with pytest.raises(FileNotFoundError):
        await save(Files(threads, link), b"whole", tmp_path, "kitten")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a Path blocks no less


@pytest.mark.parametrize("link", [os.link, no_links])
async def test_no_result_overwrites_another(
    threads: Threads, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    """Neither in one process nor in two, whether or not the contents are equal."""
    store, other = Files(threads, link), Files(threads, link)
    (tmp_path / "a.png").write_bytes(b"mine")
    names = [
        (await save(each, content, tmp_path, owner=owner)).name
        for each, content, owner in (
            (store, b"red", "red"),
            (store, b"fox", "fox"),
            (store, b"fox", "twin"),
            (store, b"red, again", "red"),
            (other, b"fox", "fox"),  # an equal file that it knows nothing of is its own
            (other, b"new", "new"),
        )
    ]
    assert names == ["a-2.png", "a-3.png", "a-4.png", "a-2.png", "a-3.png", "a-5.png"]
    assert [(tmp_path / name).read_bytes() for name in files(tmp_path)] == [
        *(b"red, again", b"fox", b"fox", b"new", b"mine")
    ]


async def test_many_write_one_name_at_once(store: Files, tmp_path: Path) -> None:
    contents = [bytes([n]) * (2 * BLOCK) for n in range(5)]
    paths = await asyncio.gather(
        *(
            save(store, pieces([each[:BLOCK], each[BLOCK:]]), tmp_path, owner=str(n))
            for n, each in enumerate(contents)
        )
    )
    assert [path.read_bytes() for path in paths] == contents
    assert files(tmp_path) == ["a-2.png", "a-3.png", "a-4.png", "a-5.png", "a.png"]


async def test_many_write_one_result_at_once(store: Files, tmp_path: Path) -> None:
    """Whoever is last stays; none waits for another, and no partial file is left."""
    ready = asyncio.Barrier(12)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * BLOCK
        await ready.wait()

    saving = (save(store, chunks(), tmp_path, owner="one", replace=True) for _ in range(12))
    assert {path.name for path in await asyncio.gather(*saving)} == {"a.png"}
    assert files(tmp_path) == ["a.png"]


async def test_memory_of_names_is_bounded(threads: Threads, store: Files, tmp_path: Path) -> None:
    """Of the oldest names only the files know, and an equal one is replaced."""
    store = Files(threads, remembered=2)
    for stem in ("a", "b", "c"):
        await save(store, b"x", tmp_path, stem, owner=stem)
    assert (await save(store, b"x", tmp_path, "a", owner="?")).name == "a.png"
    assert (await save(store, b"x", tmp_path, "c", owner="?")).name == "c-2.png"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/nowhere/at/all"),
        os.mkfifo,
        lambda path: path.write_bytes(b"aa"),
        lambda path: path.write_bytes(b"b"),
    ],
)
@pytest.mark.parametrize("link", [os.link, no_links])
async def test_whatever_has_the_name_stays(
    threads: Threads,
    tmp_path: Path,
    make: Callable[[Path], None],
    link: Callable[[Path, Path], None],
) -> None:
    store = Files(threads, link)
    make(tmp_path / "a.png")
    before = (tmp_path / "a.png").lstat()
    assert (await save(store, b"a", tmp_path)).name == "a-2.png"
    assert os.path.samestat(before, (tmp_path / "a.png").lstat())


def save_for_ever(folder: Path, saving: Any) -> None:
    """Save a file whose second part never comes."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * BLOCK
        saving.set()
        await asyncio.Event().wait()

    asyncio.run(save(Files(Threads()), chunks(), folder))


async def test_what_a_killed_process_has_left_is_removed(store: Files, tmp_path: Path) -> None:
    """The partial file of the same result, but never one that is being written."""
    spawn = multiprocessing.get_context("spawn")
    saving = spawn.Event()
    process = spawn.Process(target=save_for_ever, args=(tmp_path, saving), daemon=True)
    process.start()
    assert await asyncio.to_thread(saving.wait, 60)
    assert (await save(store, b"1", tmp_path)).name == "a.png"
    assert files(tmp_path) == [".a.part", "a.png"]
    process.kill()
    await asyncio.to_thread(process.join)
    process.close()
    (tmp_path / ".b.part").write_bytes(b"another's")
    assert (await save(store, b"2", tmp_path)).name == "a.png"
    assert files(tmp_path) == [".b.part", "a.png"]


@pytest.mark.parametrize(
    ("error", "made"),
    [
        (BlockingIOError(11, "locked"), None),  # somebody takes it for a leftover
        (FileNotFoundError(), None),  # and has removed it
        (OSError(95, "not supported"), [".a.part"]),
    ],
)
def test_locks_that_are_taken_or_missing(
    tmp_path: Path, error: OSError, made: list[str] | None
) -> None:
    """Seen by nobody but two processes at the same moment, or on a file system without locks."""

    def flock(_descriptor: int) -> None:
        raise error

    created = create(tmp_path / ".a.part", flock)
    assert (created and [created[0].name]) == made
    if created:
        created[1].close()


def test_a_file_that_was_replaced_before_it_was_locked(tmp_path: Path) -> None:
    path = tmp_path / ".a.part"

    def flock(_descriptor: int) -> None:
        path.unlink()
        path.write_bytes(b"another's")

    assert create(path, flock) is None
    assert create(path, flock) is None  # nor is it removed as a leftover
    assert path.exists()


async def test_a_leftover_that_cannot_be_removed_is_passed_by(store: Files, tmp_path: Path) -> None:
    (tmp_path / ".a.part").mkdir()
    assert (await save(store, b"1", tmp_path)).name == "a.png"
    assert files(tmp_path) == [".a.part", "a.png"]


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), asyncio.CancelledError()])
@pytest.mark.parametrize("count", range(4))
async def test_a_broken_download_leaves_nothing(
    store: Files, tmp_path: Path, count: int, error: BaseException
) -> None:
    """Whatever ends the content early, after any chunk, the partial file goes."""
    with pytest.raises(type(error)) as caught:
        await save(store, pieces([b"x" * BLOCK] * count, error=error), tmp_path)
    assert caught.value is error
    assert files(tmp_path) == []


@pytest.mark.parametrize("turns", range(24))
async def test_a_cancelled_download_leaves_nothing_or_the_whole(
    store: Files, tmp_path: Path, turns: int
) -> None:
    """Cancelled at any moment, twice even, a save leaves no partial file and no thread behind."""
    content = [bytes([n]) * BLOCK for n in range(3)]
    task = asyncio.ensure_future(save(store, pieces(content), tmp_path))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    left = files(tmp_path)
    assert left == ["a.png"] or (left == [] and task.cancelled())
    assert all((tmp_path / name).read_bytes() == b"".join(content) for name in left)


class Thread:
    """A call that blocks in its thread until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.began = threading.Event()
        self.released = threading.Event()
        self.ended = False
        self.error = error

    def __call__(self) -> str:
        """Block."""
        self.began.set()
        assert self.released.wait(30)
        self.ended = True
        if self.error is not None:
            raise self.error
        return "done"


async def test_a_thread_returns_what_it_made() -> None:
    threads = Threads()
    assert await threads.run(int, "ff", base=16) == 255
    with pytest.raises(FileNotFoundError):
        await threads.run(Path("/no/such/file").read_bytes)
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(int)


@pytest.mark.parametrize("error", [None, OSError("full")])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancelled_thread_is_waited_for(times: int, error: Exception | None) -> None:
    """However often it is cancelled, a write ends before its file may be removed."""
    thread = Thread(error)
    threads = Threads()
    task = asyncio.ensure_future(threads.run(thread))
    await asyncio.to_thread(thread.began.wait)
    for _ in range(times):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    assert not task.done()
    thread.released.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert thread.ended
    threads.close()


def test_the_end_of_the_loop_waits_for_the_thread() -> None:
    """When asyncio.run cancels all that is left, a write still ends before its file is removed."""
    thread = Thread()
    threads = Threads()
    told: list[bool] = []

    async def write() -> None:
        try:
            await threads.run(thread)
        finally:
            told.append(thread.ended)

    async def release() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_later(0, thread.released.set)

    async def main() -> None:
        tasks = {asyncio.ensure_future(write()), asyncio.ensure_future(release())}
        await asyncio.to_thread(thread.began.wait)
        assert not any(task.done() for task in tasks)

    asyncio.run(main())
    assert told == [True]
    threads.close()


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK + 5])
async def test_a_full_disk_leaves_nothing(store: Files, tmp_path: Path, size: int) -> None:
    with pytest.raises(OSError, match="File too large"), small_disk(size):
        await save(store, pieces([b"x" * BLOCK] * 2), tmp_path)
    assert files(tmp_path) == []


async def test_a_folder_that_is_a_file_is_an_os_error(store: Files, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(FileExistsError):
        await save(store, PNG, tmp_path / "taken")
    with pytest.raises(NotADirectoryError):
        await save(store, PNG, tmp_path / "taken" / "below")
    assert files(tmp_path) == ["taken"]


async def test_a_folder_that_goes_away_is_an_os_error(store: Files, tmp_path: Path) -> None:
    folder = tmp_path / "new"

    def remove() -> None:
        if folder.exists():
            shutil.rmtree(folder)

    with pytest.raises(FileNotFoundError):
        await save(store, pieces([b"x" * BLOCK], remove), folder)


PLAIN = bytes(range(256)) * 999
PACKED = {
    "gzip": gzip.compress(PLAIN),
    "X-GZIP ": gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]) + bytes(8),
    "deflate": zlib.compress(PLAIN),
    "Deflate": zlib.compress(PLAIN, wbits=-15),
    "br": brotli.compress(PLAIN),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("size", [1, 1000, BLOCK])
def test_a_packed_body_is_unpacked(encoding: str, size: int) -> None:
    """However it is cut, and it is complete with its last byte only."""
    packed = PACKED[encoding]
    unpacking = make_decoder(encoding)
    assert unpacking is not None
    assert not unpacking.complete
    content = bytearray()
    for start in range(0, len(packed), size):
        content += unpacking.decode(packed[start : start + size])
        while unpacking.pending:
            content += unpacking.decode(b"")
    assert content == PLAIN
    assert unpacking.complete
    short = make_decoder(encoding)
    assert short is not None
    short.decode(packed.rstrip(b"\0")[:-1])
    assert not short.complete


@pytest.mark.parametrize("encoding", PACKED)
def test_a_damaged_body_is_a_value_error(encoding: str) -> None:
    unpacking = make_decoder(encoding)
    assert unpacking is not None
    with pytest.raises(ValueError, match="the result is damaged"):
        unpacking.decode(b"\xff" * 100)


def test_brotli_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brotli", "brotlicffi"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"compressed with brotli: install Brotli 1\.2"):
        make_decoder("br")


def test_an_old_brotli_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be told where to stop."""
    monkeypatch.setattr(brotli, "Decompressor", object)
    monkeypatch.setitem(sys.modules, "brotlicffi", None)
    with pytest.raises(ValueError, match=r"install Brotli 1\.2"):
        make_decoder("br")


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_a_bomb_is_unpacked_in_pieces(encoding: str) -> None:
    bomb = bytes(100_000_000)
    packed = brotli.compress(bomb, quality=1) if encoding == "br" else gzip.compress(bomb, 1)
    unpacking = make_decoder(encoding)
    assert unpacking is not None
    size = len(unpacking.decode(packed[:1024]))
    assert 0 < size < 2_000_000
    start = 1024
    while not unpacking.complete:
        taken = b"" if unpacking.pending else packed[start : start + 1024]
        start += len(taken)
        piece = unpacking.decode(taken)
        assert len(piece) < 2_000_000
        size += len(piece)
    assert size == len(bomb)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity", "aws-chunked,", "AWS-chunked"])
def test_a_body_that_is_not_packed(encoding: str) -> None:
    assert make_decoder(encoding) is None


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "UTF-8", "none", "binary"])
@pytest.mark.parametrize("start", [PNG, b"RIFF\1\0\0\0WEBP", b"\0\0\0\x20ftypisom", b"ID3\4"])
def test_media_are_not_packed_whatever_their_label_says(encoding: str, start: bytes) -> None:
    assert make_decoder(encoding, start) is None


def test_an_upload_in_chunks_may_be_packed() -> None:
    unpacking = make_decoder("aws-chunked, gzip", PACKED["gzip"])
    assert unpacking is not None
    assert unpacking.decode(PACKED["gzip"])


@pytest.mark.parametrize("encoding", ["zstd", "gzip, br", "x" * 100])
def test_an_unknown_encoding_is_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=f"encoded with '{encoding[:40]}'"):
        make_decoder(encoding)


@pytest.mark.parametrize(
    ("url", "content_type", "content"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "image/png", PNG[:8]),
        ("DATA:image/png;BASE64,iVBORw0KGgo=", "image/png", PNG[:8]),
        ("data:image/png;base64,iVBORw0KGgo", "image/png", PNG[:8]),
        ("data:image/png;base64,iVBO\r\nRw0K Ggo%3D", "image/png", PNG[:8]),
        ("data:image/png;a=b;base64,iVBORw0KGgo=", "image/png;a=b", PNG[:8]),
        ("data:;base64,-_-_", "", b"\xfb\xff\xbf"),
        ("data:;base64,%2B/+%2F", "", b"\xfb\xff\xbf"),
        ("data:text/plain,a%20b,c+d", "text/plain", b"a b,c+d"),
        ("data:text/plain;charset=utf-8,\u732b", "text/plain;charset=utf-8", b"\xe7\x8c\xab"),
        ("data:,", "", b""),
    ],
)
def test_a_data_url_is_read(url: str, content_type: str, content: bytes) -> None:
    """Base64 of either alphabet, padded or not and broken into lines, or percent-encoded text."""
    assert is_data_url(url)
    assert read_data_url(url) == (content_type, content)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png;base64",
        "data:;base64,A",
        "data:;base64,AAAAA",
        "data:;base64,AA=A",
        "data:;base64,AAAA****",
        "data:;base64,\u732b",
        "data:,\ud800",
    ],
    ids=ascii,
)
def test_what_is_no_data_url_is_an_error(url: str) -> None:
    """Damaged bytes are not guessed."""
    with pytest.raises(ValueError, match=r"."):
        read_data_url(url)


@given(st.binary(), st.sampled_from(["base64", "url", "bare", "text"]))
def test_any_bytes_travel_in_a_data_url(content: bytes, form: str) -> None:
    """What is packed in any of the forms is what is read."""
    packed = {
        "base64": lambda: ";base64," + base64.b64encode(content).decode(),
        "url": lambda: ";base64," + base64.urlsafe_b64encode(content).decode(),
        "bare": lambda: ";base64," + base64.b64encode(content).decode().rstrip("="),
        "text": lambda: "," + quote(content),
    }[form]()
    assert read_data_url(f"data:a/b{packed}") == ("a/b", content)


@given(st.text())
def test_no_data_url_is_anything_but_a_value_error(text: str) -> None:
    """Whatever follows the scheme is bytes or a ValueError."""
    with suppress(ValueError):
        assert isinstance(read_data_url(f"data:{text}")[1], bytes)


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("https://h/a", True),
        ("HTTP://h/a", True),
        ("ftp://h/a", False),
        ("//h/a", False),
        ("", False),
        ("https://h/" + "a" * 60_000, True),
        ("https://h/" + "a" * 70_000, False),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_places_on_the_web(url: str, *, web: bool) -> None:
    """An http or https URL, and not one of megabytes."""
    assert is_web_url(url) is web


async def test_names_that_differ_by_case_are_two_files_everywhere(
    threads: Threads, tmp_path: Path
) -> None:
    """Also where the file system takes them for one, and for equal pictures."""

    def link(source: Path, target: Path) -> None:
        if target.name.lower() in {path.name.lower() for path in tmp_path.iterdir()}:
            raise FileExistsError
        os.link(source, target)

    store = Files(threads, link)
    names = []
    for stem in ("Red Fox", "red fox", "RED FOX"):
        options: dict[str, Any] = {"owner": stem, "replace": False}
        path = await store.save(pieces([b"same"]), tmp_path, stem, ".png", **options)
        names.append(path.name)
    assert names == ["Red Fox.png", "red fox-2.png", "RED FOX-3.png"]
