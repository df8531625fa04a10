"""Download: whole or not at all, named by what it is, and without the key."""

import asyncio
import base64
import gzip
import json
import pickle
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aireiter_async import (
    AireiterError,
    AsyncClient,
    ConnectError,
    DownloadError,
    Output,
    ProtocolError,
    RequestTimeoutError,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskStatus,
    TransportError,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_steps import Sweep, cancel_at

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]

MEGABYTE = 1024 * 1024


async def finished(client: AsyncClient, model: str = "veo3_1") -> Task:
    """Run one task to its end."""
    return await client.run(SubmitRequest(model, {}))


def answer(body: bytes, *headers: bytes, length: int | None = None, status: int = 200) -> bytes:
    """Make an HTTP answer of bytes."""
    lines = [
        b"HTTP/1.1 %d x" % status,
        b"Content-Length: %d" % (len(body) if length is None else length),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def files(directory: Path) -> list[str]:
    """Return the names of all that is in a directory, which may be missing."""
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


async def test_a_result_is_saved_under_its_id(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """The file has the task's id as its name, and all bytes; the directory is made."""
    task = await finished(client)
    [path] = await client.download(task, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / f"{task.out_task_id}.mp4"
    assert path.read_bytes()[4:12] == b"ftypisom"
    assert files(path.parent) == [path.name]
    assert client.stats.bytes_downloaded == path.stat().st_size
    assert service.leaks == []


async def test_several_results_are_numbered(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Several outputs are saved in their order, numbered from 1."""
    service.outputs = 3
    task = await finished(client, "nano_banana")
    paths = await client.download(task, str(tmp_path), name="kitten")
    assert [path.name for path in paths] == ["kitten-1.png", "kitten-2.png", "kitten-3.png"]
    assert len({path.read_bytes() for path in paths}) == 3


@pytest.mark.parametrize(
    ("model", "suffix"),
    [
        ("veo3_1", ".mp4"),
        ("nano_banana", ".png"),
        ("kling_v3_omni", ".mp4"),
        ("minimax_h3_turbo", ".mp4"),
        ("seed_audio_1_0", ".wav"),
        ("suno_v5", ".mp3"),
        ("flow_music", ".m4a"),
        ("flow_music_stems", ".zip"),
    ],
)
async def test_each_output_shape_is_saved(
    client: AsyncClient, tmp_path: Path, model: str, suffix: str
) -> None:
    """Wherever a model puts its result, that is what is saved, and not a cover."""
    [path] = await client.download(await finished(client, model), tmp_path)
    assert path.suffix == suffix
    assert path.stat().st_size > 0


async def test_lyrics_are_saved_as_text(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """An output without a URL is saved as UTF-8 text, title first, without a request."""
    task = await finished(client, "suno_lyrics")
    before = len(service.requests)
    [path] = await client.download(task, tmp_path)
    assert path.name == f"{task.out_task_id}.txt"
    assert path.read_bytes().decode("utf-8").startswith("Últimos días, 末班列车 0\n\n[Verse]")
    assert len(service.requests) == before
    assert client.stats.bytes_downloaded == path.stat().st_size


async def test_one_output_is_saved_under_the_name_in_its_url(
    client: AsyncClient, tmp_path: Path
) -> None:
    """An output alone has the name that its URL has, or the one that is given."""
    [output] = (await finished(client)).outputs
    assert [path.name for path in await client.download(output, tmp_path)] == ["item-0.mp4"]
    assert [path.name for path in await client.download(output, tmp_path, name="a.b")] == [
        "a.b.mp4"
    ]


async def test_a_file_of_that_name_is_replaced(client: AsyncClient, tmp_path: Path) -> None:
    """A file that is there already is replaced as a whole."""
    (tmp_path / "kitten.mp4").write_bytes(b"old")
    [path] = await client.download(await finished(client), tmp_path, name="kitten")
    assert path.read_bytes() != b"old"
    assert files(tmp_path) == ["kitten.mp4"]


@pytest.mark.parametrize("name", ["a/b", "/etc/passwd", "../a", "a/", "", ".", ".."])
async def test_a_name_is_no_path(
    service: FakeService, client: AsyncClient, tmp_path: Path, name: str
) -> None:
    """A name with a directory in it is refused before anything is asked for."""
    task = await finished(client)
    before = len(service.requests)
    with pytest.raises(ValueError, match="name must be a file name without a directory"):
        await client.download(task, tmp_path, name=name)
    assert len(service.requests) == before
    assert files(tmp_path) == []


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.FAILED, TaskStatus.UNKNOWN])
async def test_only_completed_tasks_have_results(
    client: AsyncClient, tmp_path: Path, status: TaskStatus
) -> None:
    """A task that has not completed is a ValueError that says what to do."""
    with pytest.raises(ValueError, match="wait for it first"):
        await client.download(Task("a", status), tmp_path)


@pytest.mark.parametrize("wrong", ["a", None, [Output(url="http://127.0.0.1/")]])
async def test_only_tasks_and_outputs_are_downloaded(
    client: AsyncClient, tmp_path: Path, wrong: Any
) -> None:
    """What is neither a task nor an output is a TypeError."""
    with pytest.raises(TypeError, match="task_or_output must be a Task or an Output"):
        await client.download(wrong, tmp_path)


# aiohttp itself asks once more for what it gets no answer to at all, since a GET may be repeated.
ASKED_TWICE = {"reset", "lost answer"}
BAD_RESULTS: dict[str, tuple[Fault, type[Exception]]] = {
    "truncated": (Fault.truncated(), TransportError),
    "reset": (Fault.reset(), TransportError),
    "lost answer": (Fault.lost_answer(), TransportError),
    "HTML 200": (Fault.html(200), ProtocolError),
    "HTML in capitals": (
        Fault.reply(200, b"<HTML>", headers={"Content-Type": "Text/HTML; charset=x"}),
        ProtocolError,
    ),
    "HTML 404": (Fault.html(404), ProtocolError),
    "403": (Fault.reply(403, b"<Error/>", headers={"Content-Type": "text/xml"}), ProtocolError),
    "500": (Fault.server_error(), ProtocolError),
    "206": (Fault.reply(206, b"x", headers={"Content-Type": "video/mp4"}), ProtocolError),
    "429": (Fault.too_many_requests(0), ProtocolError),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
async def test_a_bad_answer_is_retried(
    service: FakeService, client: AsyncClient, tmp_path: Path, name: str
) -> None:
    """A result that did not come whole is asked for again."""
    task = await finished(client)
    service.script("result", BAD_RESULTS[name][0])
    [path] = await client.download(task, tmp_path)
    assert path.read_bytes()[4:8] == b"ftyp"
    assert files(tmp_path) == [path.name]
    assert client.stats.retries == (name not in ASKED_TWICE)


@pytest.mark.parametrize("name", BAD_RESULTS)
async def test_nothing_is_left_of_a_result_that_does_not_come(
    service: FakeService, connect: Connect, tmp_path: Path, name: str
) -> None:
    """When the attempts are over, DownloadError says of which task, where and why; no file is left."""
    client = connect(retry=RetryPolicy(base=0, attempts=2))
    task = await finished(client)
    fault, kind = BAD_RESULTS[name]
    service.script("result", *[fault] * (4 if name in ASKED_TWICE else 2))
    with pytest.raises(DownloadError) as caught:
        await client.download(task, tmp_path)
    error = caught.value
    assert (error.url, error.out_task_id) == (task.outputs[0].url, task.out_task_id)
    assert isinstance(error.__cause__, kind)
    assert files(tmp_path) == []
    assert service.scripted("result") == 0
    assert client.stats.bytes_downloaded == 0


async def test_an_empty_result_is_no_result(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A result of no bytes is an error, and no file."""
    task = await finished(client)
    service.script("result", Fault.reply(200, b"", headers={"Content-Type": "video/mp4"}))
    with pytest.raises(DownloadError, match="empty"):
        await client.download(task, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        answer(b"GIF89a", length=10**12),
        answer(b"GIF89a", b"Content-Encoding: gzip"),
        answer(b"", status=204),
        answer(b"", status=304),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    ],
)
async def test_whatever_a_results_host_sends_is_an_error(
    connect: Connect, listen: Listen, tmp_path: Path, raw: bytes
) -> None:
    """Bytes that are no result are a DownloadError, and no file."""
    client = connect(retry=RetryPolicy(attempts=1))
    url = await listen(lambda _: raw)
    with pytest.raises(DownloadError):
        await client.download(Output(url=f"{url}/a"), tmp_path)
    assert files(tmp_path) == []


async def test_the_results_before_a_failure_are_kept(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """When the second of three results fails, the first is there."""
    service.outputs = 3
    client = connect(retry=RetryPolicy(attempts=1))
    task = await finished(client)
    service.script("result", Fault.ok(), Fault.truncated())
    with pytest.raises(DownloadError):
        await client.download(task, tmp_path, name="a")
    assert files(tmp_path) == ["a-1.mp4"]


async def test_a_large_result_that_breaks_off_is_retried(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """What was already on disk of a result that broke off is gone; the next attempt is whole."""
    seen: list[list[str]] = []
    body = bytes(range(256)) * 4096 * 3

    def reply(_request: bytes) -> bytes:
        seen.append(files(tmp_path))
        return answer(body[: MEGABYTE * 2] if len(seen) == 1 else body, length=len(body))

    url = await listen(reply)
    [path] = await client.download(Output(url=f"{url}/a.mp4"), tmp_path)
    assert path.read_bytes() == body
    assert files(tmp_path) == ["a.mp4"]
    assert seen == [[], []]


async def test_a_download_that_is_cancelled_leaves_no_file(
    client: AsyncClient, listen: Listen, until: Until, tmp_path: Path
) -> None:
    """Cancelled half way, with bytes on disk, a download leaves nothing, and no slot taken."""
    body = b"x" * (MEGABYTE * 3)
    url = await listen(lambda _: (answer(body, length=2 * len(body)), b""))
    running = asyncio.create_task(client.download(Output(url=f"{url}/a.mp4"), tmp_path))
    await until(lambda: files(tmp_path))
    assert files(tmp_path)[0].startswith(".a-")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert files(tmp_path) == []
    assert client.stats.in_flight == 0


async def test_a_result_that_hangs_is_cut_short(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """A result that does not begin, or stops, is cut short by the client's timeout."""
    client = connect(timeout=0.2, retry=RetryPolicy(base=0, attempts=2))
    task = await finished(client)
    service.script("result", Fault.hang(), Fault.drip(80))
    with pytest.raises(DownloadError, match=r"0\.2 s") as caught:
        await client.download(task, tmp_path)
    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert files(tmp_path) == []


async def test_a_result_that_cannot_be_read_is_cut_short(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    """A chunk that is none, after good ones, does not hold a download up for ever."""
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGIF8\r\n"
    url = await listen(lambda _: (start, b"garbage\r\n", b"0\r\n\r\n"))
    client = connect(timeout=0.1, retry=RetryPolicy(attempts=1))
    with pytest.raises(DownloadError):
        await asyncio.wait_for(client.download(Output(url=f"{url}/a"), tmp_path), 5)
    assert files(tmp_path) == []


async def test_a_slow_result_is_not_cut_short(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """The timeout counts between two reads: a result may take longer in all."""
    client = connect(timeout=0.3, retry=RetryPolicy(attempts=1))
    task = await finished(client)
    service.script("result", Fault.drip(0.4))
    [path] = await client.download(task, tmp_path)
    assert path.stat().st_size > 0


async def test_the_key_does_not_go_to_the_results_host(
    service: FakeService, client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """No request for a result has the key, on whatever host, nor after a redirect; each has a name."""
    heard: list[bytes] = []

    def reply(request: bytes) -> bytes:
        heard.append(request)
        return answer(b"\xff\xd8\xff")

    task = await finished(client)
    service.script("result", Fault.redirect(f"{await listen(reply)}/moved"))
    [path] = await client.download(task, tmp_path)
    assert path.read_bytes() == b"\xff\xd8\xff"
    service.separate_results = False
    assert service.leaks == []
    [seen] = [each for each in service.requests if each.path.startswith("/upload/")]
    assert "Authorization" not in seen.headers
    assert seen.headers["User-Agent"].startswith("aireiter-async/")
    assert str(service.api_key).encode() not in heard[0]
    assert b"User-Agent: aireiter-async/" in heard[0]


async def test_results_on_the_same_host_are_asked_for_without_the_key(
    connect: Connect, tmp_path: Path
) -> None:
    """The key is not sent for a result even where it is on the API's host."""
    async with FakeService(separate_results=False) as service:
        client = connect(base_url=service.url)
        await client.download(await finished(client), tmp_path)
        assert service.leaks == []
        assert service.counts["/upload"] == 1


@pytest.mark.parametrize(
    "location",
    [
        "/again",
        "ftp://127.0.0.1/a",
        "http://[bad/",
        "http://nowhere.invalid/",
        "http:///",
        "mailto:a",
    ],
)
async def test_a_redirect_to_nowhere_is_an_error(
    connect: Connect, listen: Listen, tmp_path: Path, location: str
) -> None:
    """A redirect in a circle, or to what is no place, is a DownloadError."""
    url = await listen(lambda _: answer(b"", b"Location: " + location.encode(), status=302))
    client = connect(retry=RetryPolicy(attempts=1))
    with pytest.raises(DownloadError) as caught:
        await client.download(Output(url=f"{url}/a"), tmp_path)
    assert isinstance(caught.value.__cause__, TransportError)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/a",
        "file:///etc/passwd",
        "data:image/png;base64,iVBO*w0K",
        "s1.pxz.ai/upload/a.png",
        "http://",
        "http://[bad/a",
        "http://127.0.0.1:99999/a",
        "http://a..b.invalid/a",
        f"http://{'a' * 64}.invalid/a",
        "http://127.0.0.1:1/a",
    ],
)
async def test_a_url_that_leads_nowhere_is_an_error(
    connect: Connect, tmp_path: Path, url: str
) -> None:
    """A result whose URL is no place on the web is a DownloadError, from an output or a task."""
    client = connect(retry=RetryPolicy(attempts=1))
    output = Output(url=url)
    for what in (output, Task("a", TaskStatus.COMPLETED, outputs=(output,))):
        with pytest.raises(DownloadError) as caught:
            await client.download(what, tmp_path)
        assert caught.value.url == url
        assert isinstance(caught.value.__cause__, ConnectError | ValueError)
        assert caught.value.out_task_id == (None if what is output else "a")
    assert files(tmp_path) == []


async def test_a_result_within_its_url_is_saved(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A ``data:`` URL is decoded and saved like any other result, without a request."""
    png = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20_000
    url = f"data:image/jpeg;base64,{base64.b64encode(png).decode()}"
    data = {"statusCode": 200, "data": {"status": "completed", "output": [{"url": url}]}}
    service.script("query", Fault.reply(200, json.dumps(data)))
    task = await finished(client, "nano_banana")
    before = service.counts["/upload"]
    [path] = await client.download(task, tmp_path)
    [other] = await client.download(task.outputs[0], tmp_path)
    assert (path.name, other.name) == (f"{task.out_task_id}.png", "output.png")
    assert path.read_bytes() == other.read_bytes() == png
    assert client.stats.bytes_downloaded == 2 * len(png)
    assert service.counts["/upload"] == before == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_result_within_its_url_is_cancelled_anywhere(
    client: AsyncClient, tmp_path: Path, *, late: bool
) -> None:
    """Saving what a ``data:`` URL holds leaves all of it or nothing, wherever it is cancelled."""
    content = bytes(range(256)) * 12_000
    output = Output(url=f"data:image/png;base64,{base64.b64encode(content).decode()}")
    for step in (sweep := Sweep()):
        directory = tmp_path / str(step)
        sweep.struck = await cancel_at(partial(client.download, output, directory), step, late=late)
        assert files(directory) in ([], ["output.png"])
        assert all(path.read_bytes() == content for path in directory.glob("*"))
    assert files(directory)
    assert step > 3


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + "iVBO" * 100_000 + "*",
        "data:" + "a" * 400_000,
        "http://127.0.0.1:1/" + "a" * 400_000,
        "http://127.0.0.1:1/" + "a" * 60_000,
        "http://[" + "a" * 60_000,
        "http://" + "a" * 60_000,
        "http://h:99999/" + "a" * 60_000,
        "file:///" + "a" * 400_000,
        "\ud800" * 200_000,
    ],
    ids=lambda url: ascii(url[:24]),
)
async def test_an_error_does_not_carry_megabytes(
    connect: Connect, tmp_path: Path, url: str
) -> None:
    """A URL of megabytes that cannot be saved is shortened in the error, and in all of its causes."""
    client = connect(retry=RetryPolicy(attempts=1))
    with pytest.raises(DownloadError) as caught:
        await client.download(Output(url=url), tmp_path)
    error: BaseException | None = caught.value
    assert caught.value.url.startswith(url[:100])
    assert len(pickle.dumps(caught.value)) < 5_000
    while isinstance(error, AireiterError):
        assert len(str(error)) < 5_000
        error = error.__cause__
    assert len(str(error)) < 70_000


@pytest.mark.parametrize("output", [Output(), Output(title="", text=""), Output(raw={"a": 1})])
async def test_an_output_of_nothing_is_an_error(
    client: AsyncClient, tmp_path: Path, output: Output
) -> None:
    """An output without URL and text is a DownloadError."""
    with pytest.raises(DownloadError, match="empty"):
        await client.download(output, tmp_path)
    assert files(tmp_path) == []


async def test_a_task_without_outputs_has_no_files(client: AsyncClient, tmp_path: Path) -> None:
    """A completed task without outputs gives no paths."""
    assert await client.download(Task("a", TaskStatus.COMPLETED), tmp_path) == []


async def test_where_nothing_can_be_written_is_an_error(
    client: AsyncClient, tmp_path: Path
) -> None:
    """A directory that cannot be is a DownloadError, chained from what the system says."""
    (tmp_path / "file").write_bytes(b"")
    task = await finished(client)
    with pytest.raises(DownloadError) as caught:
        await client.download(task, tmp_path / "file")
    assert isinstance(caught.value.__cause__, OSError)
    assert client.stats.retries == 0


async def test_the_suffix_is_what_the_file_is(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """A PNG that is called .mp4 and comes without a type is saved as .png."""
    url = await listen(lambda _: answer(b"\x89PNG\r\n\x1a\n", b"Content-Type: binary/octet-stream"))
    [path] = await client.download(Output(url=f"{url}/clip.mp4"), tmp_path)
    assert path.name == "clip.png"


async def test_a_lent_session_that_does_not_unpack(listen: Listen, tmp_path: Path) -> None:
    """A result that comes packed all the same is unpacked, whatever a lent session is set to."""
    packed = gzip.compress(b"GIF89a" * 1000)
    url = await listen(lambda _: answer(packed, b"Content-Encoding: gzip"))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        client = AsyncClient("sk-test", base_url=url, session=session)
        [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
        assert path.read_bytes() == b"GIF89a" * 1000


async def test_a_compressed_result_is_not_asked_for(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """Results are asked for as they are: a length that was announced is the length of the file."""
    heard: list[bytes] = []

    def reply(request: bytes) -> bytes:
        heard.append(request)
        return answer(b"GIF89a")

    await client.download(Output(url=f"{await listen(reply)}/a"), tmp_path)
    assert b"Accept-Encoding: identity" in heard[0]


async def test_a_date_to_come_back_at_is_kept_without_a_clock_of_the_host(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """A Retry-After date is held against our clock where the results' host tells no time."""
    now = formatdate(usegmt=True).encode()
    replies = [answer(b"", b"Retry-After: " + now, status=503), answer(b"GIF89a")]
    url = await listen(lambda _: replies.pop(0))
    [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.name == "a.gif"


async def test_a_download_takes_a_slot(
    service: FakeService, connect: Connect, until: Until, tmp_path: Path
) -> None:
    """A download counts as an exchange in flight, and another call queues behind it."""
    client = connect(max_concurrency=1)
    task = await finished(client)
    service.script("result", Fault.hang())
    running = asyncio.create_task(client.download(task, tmp_path))
    await until(lambda: service.counts["/upload"])
    queued = asyncio.create_task(client.balance())
    await until(lambda: client.stats.waiting)
    assert client.stats.in_flight == 1
    running.cancel()
    await queued
    with pytest.raises(asyncio.CancelledError):
        await running
