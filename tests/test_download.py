"""Download: whole or not at all, named by what it is, and without the key."""

import asyncio
import base64
import functools
import gzip
import json
import pickle
import threading
import zlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import brotli
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
from tests.full_disk import full_disk
from tests.hostile_steps import Sweep, cancel_at
from tests.hostile_time import skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]

MEGABYTE = 1024 * 1024


async def finished(client: AsyncClient, model: str = "veo3_1") -> Task:
    """Run one task to its end."""
    return await client.run(SubmitRequest(model, {}))


def answer(body: bytes, *headers: bytes, length: int | None = None, status: int = 200) -> bytes:
    """Make an HTTP response of bytes."""
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
    """The file has the task's ID as its name, and all bytes; the directory is made."""
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


async def test_each_output_has_a_name_of_its_own(client: AsyncClient, tmp_path: Path) -> None:
    """That of its task and its number; that of its URL where it was made by hand."""
    tasks = [await finished(client) for _ in range(3)]
    paths = [path for each in tasks for path in await client.download(each.outputs[0], tmp_path)]
    assert [path.name for path in paths] == [f"{each.out_task_id}-1.mp4" for each in tasks]
    assert len({path.read_bytes() for path in paths}) == 3
    bare = Output(url=tasks[0].outputs[0].url)
    assert [path.name for path in await client.download(bare, tmp_path)] == ["item-0.mp4"]
    assert [path.name for path in await client.download(bare, tmp_path, name="a.b")] == ["a.b.mp4"]
    assert len(files(tmp_path)) == 5


async def test_ids_that_look_like_numbered_ones(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """The second output of one task and the only one of another do not overwrite each other."""
    client = connect()
    service.outputs = 2
    both = await client.run(SubmitRequest("veo3_1", {}, out_task_id="scene"))
    service.outputs = 1
    one = await client.run(SubmitRequest("veo3_1", {}, out_task_id="scene-1"))
    service.outputs = 2  # or the host would not have the second file any more
    for each in (client, connect()):  # whoever has saved the first time
        names = [path.name for task in (both, one) for path in await each.download(task, tmp_path)]
        assert names == ["scene-1.mp4", "scene-2.mp4", "scene-1-2.mp4"]
    assert files(tmp_path) == ["scene-1-2.mp4", "scene-1.mp4", "scene-2.mp4"]
    assert len({(tmp_path / name).read_bytes() for name in names}) == 3


async def test_a_repeated_download_replaces_its_own_file(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Under the default name even a damaged one, of another process."""
    task = await finished(client)
    (tmp_path / f"{task.out_task_id}.mp4").write_bytes(b"cut short")
    [path] = await client.download(task, tmp_path)
    assert await client.download(task, tmp_path) == [path]
    assert path.read_bytes() == await client.read(task.outputs[0])
    assert files(tmp_path) == [path.name]


async def test_a_name_that_is_taken_gets_a_number(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "kitten.mp4").write_bytes(b"old")
    tasks = [await finished(client), await finished(client)]
    saving = (client.download(task, tmp_path, name="kitten") for task in [*tasks, *tasks])
    names = sorted(path.name for [path] in await asyncio.gather(*saving))
    assert names == ["kitten-2.mp4", "kitten-2.mp4", "kitten-3.mp4", "kitten-3.mp4"]
    assert (tmp_path / "kitten.mp4").read_bytes() == b"old"
    assert len({(tmp_path / name).read_bytes() for name in names}) == 2


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
JSON = b'{"error": {"code": 404, "message": "no such file"}}'
BAD_RESULTS: dict[str, tuple[Fault, type[Exception]]] = {
    "nothing": (Fault.reply(200, b"", headers={"Content-Type": "video/mp4"}), ProtocolError),
    "JSON": (Fault.reply(200, JSON, headers={"Content-Type": "application/json"}), ProtocolError),
    "JSON as a video": (
        Fault.reply(200, JSON, headers={"Content-Type": "video/mp4"}),
        ProtocolError,
    ),
    "XML without a type": (
        Fault.reply(200, b"<?xml version='1.0'?><Error/>", headers={"Content-Type": ""}),
        ProtocolError,
    ),
    "HTML as a picture": (
        Fault.reply(200, b"<!DOCTYPE html><html>", headers={"Content-Type": "image/png"}),
        ProtocolError,
    ),
    "text": (
        Fault.reply(200, b"error code: 1015", headers={"Content-Type": "binary/octet-stream"}),
        ProtocolError,
    ),
    "truncated": (Fault.truncated(), TransportError),
    "reset": (Fault.reset(), TransportError),
    "lost answer": (Fault.lost_response(), TransportError),
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
async def test_a_bad_response_is_retried(
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
    """When the attempts are over, DownloadError says which task's, where and why."""
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


async def test_what_the_host_sent_instead_is_named(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    client = connect(retry=RetryPolicy(attempts=1))
    task = await finished(client, "nano_banana")
    service.script("result", Fault.reply(200, JSON, headers={"Content-Type": "image/png"}))
    with pytest.raises(DownloadError) as caught:
        await client.download(task, tmp_path)
    assert "the result's host sent a JSON document instead of the image" in str(caught.value)
    assert "no such file" in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        answer(b"GIF89a", length=10**12),
        answer(b"a cat", b"Content-Encoding: gzip"),
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


async def test_the_results_beside_a_failure_are_kept(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    service.outputs = 3
    client = connect(retry=RetryPolicy(attempts=1))
    task = await finished(client)
    service.script("result", Fault.truncated())
    with pytest.raises(DownloadError):
        await client.download(task, tmp_path, name="a")
    assert len(files(tmp_path)) == 2
    assert set(files(tmp_path)) < {"a-1.mp4", "a-2.mp4", "a-3.mp4"}


async def test_a_large_result_that_breaks_off_is_retried(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """Without a validator it begins again, and what was on disk is gone."""
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
    body = bytes(MEGABYTE * 3)
    url = await listen(lambda _: (answer(body, length=2 * len(body)), b""))
    running = asyncio.create_task(client.download(Output(url=f"{url}/a.mp4"), tmp_path))
    await until(lambda: files(tmp_path))
    assert files(tmp_path) == [".a.part"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert files(tmp_path) == []
    assert client.stats.in_flight == 0


async def test_a_result_that_hangs_is_cut_short(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """A result that does not begin, or stops, is interrupted by the client's timeout."""
    skip_idle_time()
    client = connect(timeout=20, retry=RetryPolicy(base=0, attempts=2))
    task = await finished(client)
    service.script("result", Fault.hang(), Fault.drip(800))
    with pytest.raises(DownloadError, match="20 s") as caught:
        await client.download(task, tmp_path)
    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert files(tmp_path) == []


async def test_a_result_that_cannot_be_read_is_cut_short(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    """A chunk that is none, after good ones, does not hold a download up forever."""
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
    skip_idle_time()
    client = connect(timeout=30, retry=RetryPolicy(attempts=1))
    task = await finished(client)
    service.script("result", Fault.drip(40))
    [path] = await client.download(task, tmp_path)
    assert path.stat().st_size > 0


async def test_the_key_does_not_go_to_the_results_host(
    service: FakeService, client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """No request for a result has it, on whatever host, nor after a redirect."""
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
    assert (path.name, other.name) == (f"{task.out_task_id}.png", f"{task.out_task_id}-1.png")
    assert path.read_bytes() == other.read_bytes() == png
    assert client.stats.bytes_downloaded == 2 * len(png)
    assert service.counts["/upload"] == before == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_result_within_its_url_is_cancelled_anywhere(
    client: AsyncClient, tmp_path: Path, *, late: bool
) -> None:
    """Saving what a ``data:`` URL holds leaves all of it or nothing, wherever it is cancelled."""
    content = bytes(range(256)) * 4_000
    output = Output(url=f"data:image/png;base64,{base64.b64encode(content).decode()}")
    for step in (sweep := Sweep()):
        directory = tmp_path / str(step)
        sweep.struck = await cancel_at(partial(client.download, output, directory), step, late=late)
        assert files(directory) in ([], ["output.png"])
        assert all(path.read_bytes() == content for path in directory.glob("*"))
    assert files(directory)
    assert step > 2


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
    """A URL of megabytes is shortened in the error, and in all of its causes."""
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


async def test_a_task_without_outputs_is_an_error(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        await client.download(Task("a", TaskStatus.COMPLETED), tmp_path)
    assert str(caught.value) == "the task has completed without a result [task a]"
    assert caught.value.advice.startswith("query the task")


async def test_names_by_template_and_function(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    service.outputs = 2
    task = await client.run(SubmitRequest("veo3_1", {}, out_task_id="a"))
    task = attrs.evolve(task, raw={"data": {"input": {"params": {"prompt": "../fox."}}}})
    for name, names in (
        ("{model}", ["veo3_1-1.mp4", "veo3_1-2.mp4"]),
        ("{n:03}-{out_task_id}", ["001-a.mp4", "002-a.mp4"]),
        ("{prompt:.6}", ["_fox-1.mp4", "_fox-2.mp4"]),
        (lambda output: f"x/{output.number}", ["x_1.mp4", "x_2.mp4"]),
        (lambda _: "CON", ["_CON-1.mp4", "_CON-2.mp4"]),
    ):
        assert [path.name for path in await client.download(task, tmp_path, name=name)] == names
    assert len(files(tmp_path)) == 10


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("{index}", ValueError, "no field index; the fields are model, n, out_task_id"),
        ("{model.__class__}", ValueError, "name may have fields such as"),
        ("a/b", ValueError, "name must be a file name without a directory"),
        (1, TypeError, "name must be a str or a function, got int"),
        (lambda _: None, TypeError, "the function name must return a str, got NoneType"),
    ],
)
async def test_a_wrong_name_is_rejected_before_anything_is_asked_for(
    service: FakeService,
    client: AsyncClient,
    tmp_path: Path,
    name: Any,
    error: type[Exception],
    text: str,
) -> None:
    task = await finished(client)
    before = len(service.requests)
    with pytest.raises(error, match=text):
        await client.download(attrs.evolve(task, raw=None), tmp_path, name=name)
    assert len(service.requests) == before
    assert files(tmp_path) == []


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


PLAIN = b"GIF89a" * 1000
PACKED = {
    b"gzip": gzip.compress(PLAIN),
    b"deflate": zlib.compress(PLAIN),
    b"br": brotli.compress(PLAIN),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("lent", [False, True])
async def test_a_packed_result_is_unpacked(
    connect: Connect, listen: Listen, tmp_path: Path, encoding: bytes, *, lent: bool
) -> None:
    """It was not asked for so, and comes so anyway; one that ends early is fetched again."""
    replies = [
        answer(packed, b"Content-Encoding: " + encoding)
        for packed in (PACKED[encoding][:-1], b"\xff" * 99, PACKED[encoding])
    ]
    url = await listen(lambda _: replies.pop(0))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        client = connect(base_url=url, session=session if lent else None)
        [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.read_bytes() == PLAIN
    assert client.stats.retries == 2


async def test_a_result_that_expands_a_thousandfold(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """A few hundred bytes of Brotli are unpacked in many pieces."""
    plain = b"GIF89a" + bytes(1_000_000)
    url = await listen(lambda _: answer(brotli.compress(plain), b"Content-Encoding: br"))
    [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.read_bytes() == plain


async def test_a_packed_result_in_small_pieces(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """Of which the first hold nothing but the head of the packing."""
    whole = answer(PACKED[b"gzip"], b"Content-Encoding: gzip")
    start = whole.index(b"\r\n\r\n") + 6
    url = await listen(lambda _: (whole[:start], whole[start : start + 4], whole[start + 4 :]))
    [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.read_bytes() == PLAIN


async def test_a_packed_rejection_is_not_quoted(connect: Connect, listen: Listen) -> None:
    url = await listen(lambda _: answer(PACKED[b"gzip"], b"Content-Encoding: gzip", status=418))
    with pytest.raises(DownloadError, match=r"\(HTTP 418\): ''\)"):
        await connect(retry=RetryPolicy(attempts=1)).read(Output(url=f"{url}/a"))


async def test_an_unknown_packing_is_an_error(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    url = await listen(lambda _: answer(b"?", b"Content-Encoding: rot13"))
    with pytest.raises(DownloadError, match="encoded with 'rot13'"):
        await connect().download(Output(url=f"{url}/a"), tmp_path)


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


async def test_downloads_have_slots_of_their_own(
    service: FakeService, connect: Connect, until: Until, tmp_path: Path
) -> None:
    """As many as the client has beside them: downloads never hold up the API's calls."""
    client = connect(max_concurrency=1)
    task = await finished(client)
    service.script("result", Fault.hang())
    running = asyncio.create_task(client.download(task, tmp_path))
    await until(lambda: service.counts["/upload"])
    queued = asyncio.create_task(client.download(task, tmp_path))
    await until(lambda: client.stats.waiting)
    assert (client.stats.in_flight, client.stats.waiting) == (1, 1)
    await client.balance()
    running.cancel()
    await queued
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_busy_default_executor_holds_up_no_download(
    client: AsyncClient, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    release = threading.Event()
    blocked = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    try:
        assert await client.download(await finished(client), tmp_path)
    finally:
        release.set()
        await asyncio.gather(*blocked)


async def test_a_full_disk_is_an_error_that_says_so(client: AsyncClient, tmp_path: Path) -> None:
    task = await finished(client)
    with full_disk(10), pytest.raises(DownloadError, match="File too large") as caught:
        await client.download(task, tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
    assert files(tmp_path) == []
    assert await client.download(task, tmp_path)


async def test_an_output_is_read(service: FakeService, client: AsyncClient, tmp_path: Path) -> None:
    """A medium, a text, and a result within its URL."""
    task = await finished(client)
    [path] = await client.download(task, tmp_path)
    assert await client.read(task.outputs[0]) == path.read_bytes()
    assert await client.read(Output(title="Rain", text="\u96e8")) == b"Rain\n\n\xe9\x9b\xa8"
    assert await client.read(Output(url="data:image/gif;base64,R0lGODlh")) == b"GIF89a"
    with pytest.raises(TypeError, match="output must be an Output, got Task"):
        await client.read(task)  # type: ignore[arg-type]
    service.script("result", *[Fault.html(200)] * 5)
    with pytest.raises(DownloadError, match="an HTML page instead of the video"):
        await client.read(task.outputs[0])


EXPIRED = [400, 401, 403, 404, 410]


def completed(url: str | None) -> Fault:
    """Make a query's reply: a completed task whose result is at *url*."""
    output = [] if url is None else [{"url": url}]
    told = {"status": "completed", "output": output}
    return Fault.reply(200, json.dumps({"statusCode": 200, "data": told}))


@pytest.mark.parametrize("status", EXPIRED)
@pytest.mark.parametrize("alone", [False, True])
async def test_a_url_that_has_expired_is_refreshed(
    service: FakeService, client: AsyncClient, tmp_path: Path, status: int, *, alone: bool
) -> None:
    """The task, which an output knows, is queried once more, and the fresh URL used at once."""
    task, other = await finished(client), await finished(client)
    service.script("result", Fault.reply(status, b"<Error/>"))
    service.script("query", completed(other.outputs[0].url))
    before = service.counts["/api/openapi/query"]
    [path] = await client.download(task.outputs[0] if alone else task, tmp_path)
    assert path.read_bytes() == await client.read(other.outputs[0])
    assert service.counts["/api/openapi/query"] == before + 1
    assert client.stats.retries == 0


@pytest.mark.parametrize("status", EXPIRED)
async def test_a_url_that_stays_expired_is_said_to_be_so(
    service: FakeService, connect: Connect, tmp_path: Path, status: int
) -> None:
    client = connect(retry=RetryPolicy(base=0, settle=0, attempts=2))
    task, other = await finished(client), await finished(client)
    refused = Fault.reply(status, b"<Error>Request has expired</Error>")
    cases: list[tuple[Task | Output, list[Fault], str]] = [
        (task, [], "the service has no fresh URL"),
        (task, [completed(None)], "the service has no fresh URL"),
        (task, [completed(other.outputs[0].url)], "the fresh URL from the service has, too"),
        (task, [Fault.html(503)] * 2, r"the task could not be queried for a fresh URL \(.*503"),
        (Output(url=task.outputs[0].url), [], rf"expired \(HTTP {status}\): http"),
    ]
    for what, queries, text in cases:
        service.script("query", *queries)
        service.script("result", *[refused] * (3 if "has, too" in text else 2))
        with pytest.raises(DownloadError, match=text) as caught:
            await client.download(what, tmp_path)
        assert f"the result's URL has expired (HTTP {status})" in str(caught.value)
        assert caught.value.expired
        assert "query the task" in caught.value.advice
        assert pickle.loads(pickle.dumps(caught.value)).advice == caught.value.advice  # noqa: S301
        assert service.scripted("query") == service.scripted("result") == 0
    assert files(tmp_path) == []


DATED = (b"Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT", b"Date: Mon, 02 Nov 2026 10:00:01 GMT")
FRESH = (b"Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT", b"Date: Mon, 02 Nov 2026 10:00:00 GMT")
TAGGED = (b'ETag: "a"',)


@attrs.define
class Host:
    """A host of one file whose connections all break; it knows ranges.

    Attributes:
        content: The file.
        headers: Sent with each response.
        share: Of what is asked for, sent before the connection breaks.
        once: Whether only the first breaks.
        partial: Makes the responses to ranges, if they are not as they should be.
    """

    content: bytes
    headers: tuple[bytes, ...] = TAGGED
    share: float = 0.4
    once: bool = False
    partial: Callable[[int], bytes] | None = None
    ranges: list[tuple[int, bytes]] = attrs.field(factory=list)
    sent: int = 0

    def __call__(self, request: bytes) -> bytes:
        fields = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if line)
        asked = fields.get(b"Range")
        start = int(asked[6:-1]) if asked else 0
        self.ranges.append((start, fields.get(b"If-Range", b"")))
        rest = self.content[start:]
        broken = not self.once or len(self.ranges) == 1
        sent = rest[: max(1, int(len(rest) * self.share))] if broken else rest
        self.sent += len(sent)
        if not asked:
            return answer(sent, *self.headers, length=len(rest))
        if self.partial is not None:
            return self.partial(start)
        return answer(sent, *self.headers, self.range(start), length=len(rest), status=206)

    def range(self, start: int) -> bytes:
        length = len(self.content)
        return b"Content-Range: bytes %d-%d/%d" % (start, length - 1, length)


FILE = b"GIF89a" + bytes(range(256)) * 12_000


@pytest.mark.parametrize(
    ("headers", "validator"), [(TAGGED, b'"a"'), (DATED, DATED[0].partition(b": ")[2])]
)
async def test_a_result_that_breaks_off_is_resumed(
    client: AsyncClient,
    listen: Listen,
    tmp_path: Path,
    headers: tuple[bytes, ...],
    validator: bytes,
) -> None:
    """However often, as long as it moves on."""
    host = Host(FILE, headers)
    url = await listen(host)
    [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.read_bytes() == FILE
    assert files(tmp_path) == ["a.gif"]
    # aiohttp drops what it has not handed over when a connection breaks.
    assert host.sent < 1.3 * len(FILE)
    assert client.stats.bytes_downloaded == len(FILE)
    starts = [start for start, _ in host.ranges]
    assert starts == sorted(set(starts))
    assert len(starts) > 20
    assert {tag for _, tag in host.ranges[1:]} == {validator}
    assert client.stats.retries == len(starts) - 1


@pytest.mark.parametrize(
    "headers",
    [
        (),
        FRESH,
        DATED[:1],
        (b'ETag: W/"a"',),
        (b'ETag: W/"a"', *DATED),
        (b"ETag: a",),
        (b"Last-Modified: yesterday", DATED[1]),
    ],
)
async def test_without_a_strong_validator_a_result_begins_again(
    client: AsyncClient, listen: Listen, tmp_path: Path, headers: tuple[bytes, ...]
) -> None:
    host = Host(FILE, headers, once=True)
    [path] = await client.download(Output(url=f"{await listen(host)}/a"), tmp_path)
    assert path.read_bytes() == FILE
    assert host.ranges == [(0, b"")] * 2


NEW = b"GIF89a" + bytes(len(FILE))


@pytest.mark.parametrize(
    "partial",
    [
        lambda _host, _start: answer(NEW, b'ETag: "b"'),
        lambda host, start: answer(NEW[start:], b'ETag: "b"', host.range(start), status=206),
        lambda host, start: answer(FILE[start + 1 :], *TAGGED, host.range(start + 1), status=206),
        lambda _host, start: answer(FILE[start:], *TAGGED, status=206),
        lambda _host, start: answer(
            FILE[start:],
            *TAGGED,
            b"Content-Range: bytes %d-%d/%d" % (start, 9**9, 9**9),
            status=206,
        ),
        lambda host, start: answer(
            FILE[start:], *TAGGED, host.range(start), b"Content-Encoding: gzip", status=206
        ),
        lambda host, start: answer(FILE, *TAGGED, host.range(start), status=206),
        lambda _host, _start: answer(b"", status=416),
        lambda _host, _start: answer(b"", status=403),
    ],
)
async def test_a_rest_that_does_not_fit_is_not_appended(
    client: AsyncClient,
    listen: Listen,
    tmp_path: Path,
    partial: Callable[[Host, int], bytes],
) -> None:
    """A file that has changed, or a host that cannot count: the result begins again."""
    host = Host(FILE, once=True)
    host.partial = functools.partial(partial, host)
    [path] = await client.download(Output(url=f"{await listen(host)}/a"), tmp_path)
    assert path.read_bytes() == FILE
    assert [start > 0 for start, _ in host.ranges] == [False, True, False]


@pytest.mark.parametrize(
    "failures",
    [
        [answer(b"", status=503)],
        [answer(b"", b"Retry-After: 0", status=429), answer(b"", status=408)],
        [b"", b""],
        [answer(b"", *TAGGED, b"Content-Range: bytes %d-%d/*", length=9, status=206)],
        [answer(b"", *TAGGED, b"Content-Range: bytes %d-%d/*", status=206)],
    ],
)
async def test_what_fails_while_resuming_is_retried(
    client: AsyncClient, listen: Listen, tmp_path: Path, failures: list[bytes]
) -> None:
    """Nothing that has arrived is thrown away for it."""
    host = Host(FILE, once=True)
    left = list(failures)

    def partial(start: int) -> bytes:
        if left:
            return left.pop(0).replace(b"%d-%d", b"%d-%d" % (start, start + 9))
        return answer(FILE[start:], *TAGGED, host.range(start), status=206)

    host.partial = partial
    [path] = await client.download(Output(url=f"{await listen(host)}/a"), tmp_path)
    assert path.read_bytes() == FILE
    assert [start for start, _ in host.ranges].count(0) == 1


async def test_a_result_of_unknown_length_is_resumed(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """Its length is known from the first range on."""
    head = b'HTTP/1.1 200 x\r\nETag: "a"\r\nTransfer-Encoding: chunked\r\n\r\n'
    host = Host(FILE, once=True)
    url = await listen(
        lambda request: (
            host(request) if b"Range" in request else head + b"186A0\r\n" + FILE[:100_000] + b"\r\n"
        )
    )
    [path] = await client.download(Output(url=f"{url}/a"), tmp_path)
    assert path.read_bytes() == FILE


async def test_a_rest_in_parts(client: AsyncClient, listen: Listen, tmp_path: Path) -> None:
    """A host may send less than the range that is asked for, and may not know the length."""
    host = Host(FILE, once=True)

    def partial(start: int) -> bytes:
        end = min(start + 700_000, len(FILE))
        told = b"Content-Range: bytes %d-%d/%d" % (start, end - 1, len(FILE))
        return answer(FILE[start:end], *TAGGED, told, status=206)

    host.partial = partial
    [path] = await client.download(Output(url=f"{await listen(host)}/a"), tmp_path)
    assert path.read_bytes() == FILE
    assert len(host.ranges) == 4


async def test_a_host_that_stays_away_ends_the_resuming(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    """With one attempt there is no second request."""
    for attempts, requests in ((1, 1), (2, 2 * (1 + 2 * 2)), (3, 3 * (1 + 2 * 3))):
        client = connect(retry=RetryPolicy(base=0, attempts=attempts))
        host = Host(FILE, partial=lambda _start: b"")
        with pytest.raises(DownloadError):
            await client.download(Output(url=f"{await listen(host)}/a"), tmp_path)
        assert len(host.ranges) == requests
        assert files(tmp_path) == []


@pytest.mark.parametrize("late", [False, True])
async def test_a_resumed_download_is_cancelled_anywhere(
    client: AsyncClient, listen: Listen, tmp_path: Path, *, late: bool
) -> None:
    """It leaves all or nothing, and no slot taken."""
    content = FILE[:700_000]
    for step in (sweep := Sweep()):
        url = await listen(Host(content, once=True))
        folder = tmp_path / str(step)
        call = partial(client.download, Output(url=f"{url}/a"), folder)
        sweep.struck = await cancel_at(call, step, late=late)
        assert files(folder) in ([], ["a.gif"])
        assert client.stats.in_flight == 0
    assert (folder / "a.gif").read_bytes() == content
    assert step > 15  # some 20: pieces may arrive together
