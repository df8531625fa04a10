"""Results on disk: named for what they are, and whole or not there at all."""

import asyncio
import base64
import resource
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aireiter_async._media import (
    _in_thread,
    file_suffix,
    is_data_url,
    is_web_url,
    read_data_url,
    save,
    save_data_url,
    save_text,
    stem_of_url,
)

BLOCK = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HEADS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff\xe0": ".jpg",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ": ".webp",
    b"GIF89a": ".gif",
    b"\x00\x00\x00\x1cftypavif": ".avif",
    b"\x00\x00\x00\x1cftypisom": ".mp4",
    b"\x00\x00\x00\x1cftypM4A ": ".m4a",
    b"\x00\x00\x00\x14ftypqt  ": ".mov",
    b"\x1aE\xdf\xa3": ".webm",
    b"ID3\x04": ".mp3",
    b"RIFF\x00\x00\x00\x00WAVEfmt ": ".wav",
    b"OggS": ".ogg",
    b"fLaC": ".flac",
    b"PK\x03\x04": ".zip",
}


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


def png(_head: bytes) -> str:
    """Call anything a PNG."""
    return ".png"


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
    assert file_suffix(content_type, b"????", "https://h/a.bmp") == suffix


@pytest.mark.parametrize(("head", "suffix"), HEADS.items())
@pytest.mark.parametrize(
    "content_type",
    ["", "application/octet-stream", "image/png", "image/jpeg", "video/mp4", "text/plain"],
)
def test_the_first_bytes_name_the_suffix(content_type: str, head: bytes, suffix: str) -> None:
    """The file itself says what it is, whatever the host calls it."""
    assert file_suffix(content_type, head + bytes(50), "https://h/a.bmp") == suffix


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
    """Sound, film and picture share one container: there the type is believed, if it is of one."""
    assert file_suffix(content_type, b"\x00\x00\x00\x1cftypisom", "https://h/a") == suffix
    assert file_suffix(content_type, b"\x00\x00\x00\x1cftypqt  ", "https://h/a") == ".mov"


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
    assert file_suffix("", b"????", url) == suffix


@pytest.mark.parametrize(
    ("url", "stem"),
    [
        ("https://s1.pxz.ai/upload/kitten-1.png", "kitten-1"),
        ("https://h/a/b/c.tar.gz?x=/y.png", "c.tar"),
        ("https://h/%E7%8C%AB.png", "\u732b"),
        ("https://h/a%20b%2Bc.png", "a_b_c"),
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
        ("https://h/%ff.png", "_"),
        ("https://h/", "output"),
        ("https://h", "output"),
        ("", "output"),
        ("https://[h/a.png", "output"),
        ("Last Train Home", "Last_Train_Home"),
        ("data:image/png;base64,AAAA/kitten.png", "output"),
        ("https://h/kitten" + "/" * 70_000 + "a.png", "output"),
    ],
    ids=ascii,
)
def test_a_stem_is_safe_as_a_file_name(url: str, stem: str) -> None:
    """The last part of a URL without what could lead elsewhere."""
    assert stem_of_url(url) == stem


@given(st.text() | st.text("./\\%2eE5cfF0~:\0 \u732b").map("https://h/".__add__))
@settings(deadline=None)
def test_no_stem_leads_elsewhere(url: str) -> None:
    """Whatever the URL, its stem is one short, visible name."""
    stem = stem_of_url(url)
    assert stem == Path(stem).name
    assert stem not in {"", ".", ".."}
    assert not stem.startswith(".")
    assert not set(stem) & set("/\\:\0\n")
    assert len(stem.encode()) <= 200


@pytest.mark.parametrize("letter", ["x", "\xe9", "\u732b", "\U0001f600", "%E7%8C%AB"])
async def test_a_very_long_name_is_cut(tmp_path: Path, letter: str) -> None:
    """A name that no file system takes is cut between two characters."""
    stem = stem_of_url(f"https://h/{letter * 3000}.png")
    assert 197 <= len(stem.encode()) <= 200
    path, _ = await save(pieces([PNG]), tmp_path, stem, png)
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "stem", ["x" * 251, "\u732b" * 83, "Caf\xe9 \u732b \U0001f600", "a.b", " "]
)
async def test_any_name_that_fits_is_kept(tmp_path: Path, stem: str) -> None:
    """A stem may fill a name to its last byte: the temporary name does not need more."""
    path, _ = await save(pieces([PNG]), tmp_path, stem, png)
    assert path == tmp_path / f"{stem}.png"
    assert path.read_bytes() == PNG


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
async def test_all_chunks_arrive_in_order(tmp_path: Path, chunks: list[bytes]) -> None:
    """However the content is cut, the file holds it, and its length is told."""
    path, length = await save(pieces(chunks), tmp_path / "new" / "deep", "kitten", png)
    assert path == tmp_path / "new" / "deep" / "kitten.png"
    assert path.read_bytes() == b"".join(chunks)
    assert length == path.stat().st_size
    assert files(path.parent) == ["kitten.png"]


@pytest.mark.parametrize("size", [1, 3, 64, 100, BLOCK])
async def test_the_suffix_is_told_the_first_bytes(tmp_path: Path, size: int) -> None:
    """The first 64 bytes tell what a file is, even if they come one by one."""
    content = bytes(range(256)) * 2
    heads: list[bytes] = []

    def suffix(head: bytes) -> str:
        heads.append(head)
        return ".bin"

    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    await save(pieces(chunks), tmp_path, "a", suffix)
    assert heads == [content[:64]]


async def test_a_file_appears_once_it_is_whole(tmp_path: Path) -> None:
    """Until the last byte is written there is only a hidden partial file, and the old one stays."""
    target = tmp_path / "kitten.png"
    target.write_bytes(b"old")
    seen: list[list[str]] = []

    def look() -> None:
        assert target.read_bytes() == b"old"
        seen.append([name for name in files(tmp_path) if name != "kitten.png"])

    await save(pieces([b"x" * BLOCK] * 3, look), tmp_path, "kitten", png)
    assert seen[0] == []
    assert [len(names) for names in seen[1:]] == [1, 1, 1]
    assert all(name.startswith(".kitten-") and name.endswith(".part") for (name,) in seen[1:])
    assert target.read_bytes() == b"x" * 3 * BLOCK
    assert files(tmp_path) == ["kitten.png"]


async def test_two_may_write_the_same_name(tmp_path: Path) -> None:
    """Two at once do not write into each other's file: the later one stays, whole."""
    contents = [bytes([n]) * (2 * BLOCK) for n in range(5)]
    await asyncio.gather(
        *(save(pieces([each[:BLOCK], each[BLOCK:]]), tmp_path, "a", png) for each in contents)
    )
    assert files(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() in contents


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
async def test_nothing_is_no_result(tmp_path: Path, chunks: list[bytes]) -> None:
    """An empty answer is an error, and makes neither a file nor a directory."""
    with pytest.raises(ValueError, match="the result is empty"):
        await save(pieces(chunks), tmp_path / "new", "a", png)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), asyncio.CancelledError()])
@pytest.mark.parametrize("count", range(4))
async def test_a_broken_download_leaves_nothing(
    tmp_path: Path, count: int, error: BaseException
) -> None:
    """Whatever ends the content early, after any chunk, the partial file goes."""
    with pytest.raises(type(error)) as caught:
        await save(pieces([b"x" * BLOCK] * count, error=error), tmp_path, "a", png)
    assert caught.value is error
    assert files(tmp_path) == []


@pytest.mark.parametrize("turns", range(24))
async def test_a_cancelled_download_leaves_nothing_or_the_whole(tmp_path: Path, turns: int) -> None:
    """Cancelled at any moment, twice even, a save leaves no partial file and no thread behind."""
    content = [bytes([n]) * BLOCK for n in range(3)]
    task = asyncio.ensure_future(save(pieces(content), tmp_path, "a", png))
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
    """Without a cancellation a call in a thread is a call."""
    assert await _in_thread(int, "ff", base=16) == 255
    with pytest.raises(FileNotFoundError):
        await _in_thread(Path("/no/such/file").read_bytes)


@pytest.mark.parametrize("error", [None, OSError("full")])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancelled_thread_is_waited_for(times: int, error: Exception | None) -> None:
    """However often it is cancelled, a write ends before its file may be removed."""
    thread = Thread(error)
    task = asyncio.ensure_future(_in_thread(thread))
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


def test_the_end_of_the_loop_waits_for_the_thread() -> None:
    """When asyncio.run cancels all that is left, a write still ends before its file is removed."""
    thread = Thread()
    told: list[bool] = []

    async def write() -> None:
        try:
            await _in_thread(thread)
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


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK + 5])
async def test_a_full_disk_leaves_nothing(tmp_path: Path, size: int) -> None:
    """A disk that takes a part only is an OSError, and the part goes."""
    with pytest.raises(OSError, match="File too large"), small_disk(size):
        await save(pieces([b"x" * BLOCK] * 2), tmp_path, "a", png)
    assert files(tmp_path) == []


async def test_a_directory_that_is_a_file_is_an_os_error(tmp_path: Path) -> None:
    """What went wrong first is what is raised."""
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(FileExistsError):
        await save(pieces([PNG]), tmp_path / "taken", "a", png)
    with pytest.raises(NotADirectoryError):
        await save(pieces([PNG]), tmp_path / "taken" / "below", "a", png)
    assert files(tmp_path) == ["taken"]


async def test_a_name_that_is_a_directory_is_an_os_error(tmp_path: Path) -> None:
    """A directory is not replaced, and the whole file does not stay under its temporary name."""
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        await save(pieces([PNG]), tmp_path, "a", png)
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("stem", "error"), [("x" * 252, OSError), ("a\0b", ValueError), ("\ud800", ValueError)]
)
async def test_a_name_that_no_file_can_have_is_an_error(
    tmp_path: Path, stem: str, error: type[Exception]
) -> None:
    """A stem too long, or with what no name may hold, leaves nothing behind."""
    with pytest.raises(error):
        await save(pieces([PNG]), tmp_path, stem, png)
    assert files(tmp_path) == []


async def test_a_directory_that_goes_away_is_an_os_error(tmp_path: Path) -> None:
    """Somebody else may remove the directory meanwhile."""
    directory = tmp_path / "new"

    def remove() -> None:
        if directory.exists():
            shutil.rmtree(directory)

    with pytest.raises(FileNotFoundError):
        await save(pieces([b"x" * BLOCK], remove), directory, "a", png)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("Rain \u732b \U0001f600\r\n", b"Rain \xe7\x8c\xab \xf0\x9f\x98\x80\r\n"),
        ("half \ud83d", b"half \xed\xa0\xbd"),
    ],
)
async def test_texts_are_saved_in_utf_8(tmp_path: Path, text: str, content: bytes) -> None:
    """Lyrics arrive byte for byte, line ends included, whatever the console's code page is."""
    assert await save_text(text, tmp_path, "lyrics") == (tmp_path / "lyrics.txt", len(content))
    assert (tmp_path / "lyrics.txt").read_bytes() == content


async def test_no_text_is_no_result(tmp_path: Path) -> None:
    """An empty text is an error."""
    with pytest.raises(ValueError, match="the result is empty"):
        await save_text("", tmp_path, "lyrics")
    assert files(tmp_path) == []


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
async def test_what_is_no_data_url_is_an_error(tmp_path: Path, url: str) -> None:
    """A result within its URL that is damaged is not saved: bytes are not guessed."""
    with pytest.raises(ValueError, match=r"."):
        await save_data_url(url, tmp_path, "a")
    assert files(tmp_path) == []


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
    ("kind", "content", "suffix"),
    [
        ("image/png", PNG, ".png"),
        ("image/png", b"\xff\xd8\xff" + b"x" * (2 * BLOCK + 5), ".jpg"),
        ("image/svg+xml", b"<svg/>", ".svg"),
        ("", b"?", ".bin"),
    ],
)
async def test_a_data_url_is_saved(tmp_path: Path, kind: str, content: bytes, suffix: str) -> None:
    """A result within its URL becomes a file like any other, named for what it is."""
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    path, length = await save_data_url(url, tmp_path / "new", "kitten")
    assert (path.name, length) == (f"kitten{suffix}", len(content))
    assert path.read_bytes() == content


async def test_nothing_in_a_data_url_is_no_result(tmp_path: Path) -> None:
    """An empty result is an error here, too."""
    with pytest.raises(ValueError, match="the result is empty"):
        await save_data_url("data:image/png;base64,", tmp_path, "a")


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
