"""Sinks: results in object storage, whole or not at all."""

import asyncio
import errno
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import obstore
import pytest
from aiohttp import web
from attrs import define, field
from fsspec.implementations.memory import MemoryFileSystem
from obstore.store import LocalStore, MemoryStore, S3Store

from aireiter_async import (
    AsyncClient,
    DownloadError,
    Ledger,
    Output,
    RetryPolicy,
    Sink,
    SubmitRequest,
    models,
)
from aireiter_async.sinks import FsspecSink, ObstoreSink
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Listen = Callable[..., Awaitable[str]]
Until = Callable[[Callable[[], object]], Awaitable[None]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(6_000_000)
ONCE = RetryPolicy(attempts=1)


def answer(body: bytes, *, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n" % (length or len(body)) + body


@define
class Recorder:
    """A sink that keeps what it is given."""

    stored: dict[str, tuple[bytes, str]] = field(factory=dict)

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        self.stored[name] = (b"".join([chunk async for chunk in chunks]), content_type)
        return f"kept:{name}"


class Bucket:
    """A server that takes uploads like S3, in parts."""

    def __init__(self) -> None:
        self.open: dict[str, dict[int, bytes]] = {}
        self.objects: dict[str, tuple[bytes, str | None]] = {}
        self.types: dict[str, str | None] = {}
        self.parts = 0

    async def handle(self, request: web.Request) -> web.Response:
        body, upload = await request.read(), request.query.get("uploadId", "")
        key = request.path.removeprefix("/bucket/")
        match request.method:
            case "POST" if "uploads" in request.query:
                upload = f"u{len(self.types)}"
                self.open[upload] = {}
                self.types[upload] = request.headers.get("Content-Type")
                return web.Response(
                    text="<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>"
                    f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                )
            case "PUT":
                self.open[upload][int(request.query["partNumber"])] = body
                self.parts += 1
                return web.Response(headers={"ETag": '"e"'})
            case "POST":
                parts = self.open.pop(upload)
                self.objects[key] = b"".join(parts[n] for n in sorted(parts)), self.types[upload]
                return web.Response(
                    text="<CompleteMultipartUploadResult><ETag>e</ETag>"
                    "</CompleteMultipartUploadResult>"
                )
            case _:
                del self.open[upload]
                return web.Response(status=204)


@pytest.fixture
async def bucket() -> AsyncIterator[tuple[Bucket, S3Store]]:
    """Run a bucket; yield it and a store on it."""
    bucket = Bucket()
    app = web.Application(client_max_size=10**8)
    app.router.add_route("*", "/{path:.*}", bucket.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield (
        bucket,
        S3Store(
            "bucket",
            endpoint=f"http://127.0.0.1:{runner.addresses[0][1]}",
            access_key_id="id",
            secret_access_key="secret",
            region="here",
            client_options={"allow_http": True},
        ),
    )
    await runner.cleanup()


async def test_a_sink_gets_name_content_and_type(service: FakeService, client: AsyncClient) -> None:
    """Of media and of texts; `download` returns what it returned."""
    service.outputs = 2
    sink = Recorder()
    assert isinstance(sink, Sink)
    task = await client.run(SubmitRequest("nano_banana", {}, out_task_id="fox"))
    assert await client.download(task, sink) == ["kept:fox-1.png", "kept:fox-2.png"]
    assert [kind for _, kind in sink.stored.values()] == ["image/png"] * 2
    assert sink.stored["fox-1.png"][0] == await client.read(task.outputs[0])
    service.outputs = 1
    lyrics = await client.run(SubmitRequest("suno_lyrics", {}, out_task_id="song"))
    [stored] = await client.download(lyrics, sink, name="{model}")
    assert re.fullmatch(r"kept:suno_lyrics-[0-9a-f]{8}\.txt", stored)
    assert sink.stored[stored.removeprefix("kept:")][1] == "text/plain"


async def test_names_in_a_sink_do_not_collide(connect: Connect) -> None:
    """A result has its name whoever saves it, and no other result has."""
    ids = ("a", "b", "a-1", "a-1-1", "con", "_con")
    requests = [SubmitRequest("veo3_1", {}, out_task_id=each) for each in ids]
    tasks = [await connect().run(request) for request in requests]
    for name in ("fox", None, "{out_task_id}"):
        places = [
            [(await connect().download(each, Recorder(), name=name))[0] for each in tasks]
            for _ in range(2)
        ]
        assert places[0] == places[1]
        places[0] += [(await connect().download(tasks[0].outputs[0], Recorder(), name=name))[0]]
        assert len({*places[0]}) == len(ids) + (name is None)  # "a" as an output is "a-1"
    sink, numbers = Recorder(), ("1/out", "2/out")
    outputs = [Output(url=f"data:text/plain,{each}", title=each) for each in numbers]
    assert len({(await connect().download(each, sink))[0] for each in outputs}) == 2


class Failing(Recorder):
    """A sink that fails partway."""

    async def put(self, name: str, chunks: AsyncIterator[bytes], **_: str) -> str:
        await anext(chunks)
        raise KeyError(name)


class Hasty(Recorder):
    """A sink that does not read to the end."""

    async def put(self, name: str, chunks: AsyncIterator[bytes], **_: str) -> str:
        await anext(chunks)
        return name


@pytest.mark.parametrize(
    ("sink", "text"),
    [
        (Failing(), r"the sink failed: KeyError: 'a-\w{8}\.png'"),
        (Hasty(), "the sink returned before it had read the whole result"),
    ],
)
async def test_a_sink_that_fails_is_a_download_error(
    client: AsyncClient, listen: Listen, sink: Sink, text: str
) -> None:
    url = await listen(lambda _: answer(PNG))
    with pytest.raises(DownloadError, match=text):
        await client.download(Output(url=f"{url}/a"), sink)


class Swallowing(Recorder):
    """A sink that takes a break for the end."""

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        try:
            await super().put(name, chunks, content_type=content_type)
        except Exception:  # noqa: BLE001 - that is what it does
            return "nothing happened"
        return "stored"


async def test_a_break_is_retried_whatever_the_sink_makes_of_it(
    client: AsyncClient, listen: Listen
) -> None:
    replies = [answer(PNG[:99], length=len(PNG)), answer(PNG)]
    url = await listen(lambda _: replies.pop(0))
    assert await client.download(Output(url=f"{url}/a"), Swallowing()) == ["stored"]


@pytest.mark.parametrize(
    ("to", "text"),
    [
        (1, "got int"),
        (None, "got NoneType"),
        (b"results", "got bytes"),
        (MemoryStore(), "got MemoryStore; for object storage, pass sinks.ObstoreSink"),
        (MemoryFileSystem(), r"got MemoryFileSystem; .* or sinks.FsspecSink\(fs, prefix\)"),
    ],
)
async def test_what_is_neither_directory_nor_sink(client: AsyncClient, to: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"to must be a directory or a Sink, {text}"):
        await client.download(Output(text="a"), to)


@pytest.mark.parametrize("url", ["s3://bucket/a", "memory://a", "https://h/a", "file:///tmp"])
async def test_a_url_is_no_directory(client: AsyncClient, url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got the URL {url!r}; for object storage")):
        await client.download(Output(text="a"), url)


async def test_a_result_in_obstores_memory(client: AsyncClient, listen: Listen) -> None:
    store = MemoryStore()
    sink = ObstoreSink(store, "june/")
    assert sink == ObstoreSink(store, "june/") != ObstoreSink(MemoryStore(), "june/")
    url = await listen(lambda _: answer(PNG))
    [path] = await client.download(Output(url=f"{url}/a"), sink)
    assert re.fullmatch(r"june/a-\w{8}\.png", path)
    found = await obstore.get_async(store, path)
    assert bytes(await found.bytes_async()) == PNG
    assert found.attributes["Content-Type"] == "image/png"


async def test_a_result_in_a_store_without_content_types(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    url = await listen(lambda _: answer(PNG))
    [path] = await client.download(Output(url=f"{url}/a"), ObstoreSink(LocalStore(tmp_path)))
    assert (tmp_path / path).read_bytes() == PNG


async def test_a_result_in_a_bucket(
    client: AsyncClient, listen: Listen, bucket: tuple[Bucket, S3Store]
) -> None:
    url = await listen(lambda _: answer(PNG))
    [path] = await client.download(Output(url=f"{url}/a"), ObstoreSink(bucket[1]))
    assert bucket[0].objects == {path: (PNG, "image/png")}


async def test_a_break_aborts_the_upload(
    connect: Connect, listen: Listen, bucket: tuple[Bucket, S3Store]
) -> None:
    """Nothing is left of it, and the next run stores the result whole."""
    replies = [answer(PNG[: n * 2_000_000], length=len(PNG)) for n in range(3)] + [answer(PNG)]
    url = await listen(lambda _: replies.pop(0))
    for _ in range(3):
        with pytest.raises(DownloadError, match="could not be saved"):
            await connect(retry=ONCE).download(Output(url=f"{url}/a"), ObstoreSink(bucket[1]))
        assert (bucket[0].open, bucket[0].objects) == ({}, {})
    [path] = await connect().download(Output(url=f"{url}/a"), ObstoreSink(bucket[1]))
    assert bucket[0].objects == {path: (PNG, "image/png")}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("sent", [5000, len(PNG) - 1])
async def test_a_cancelled_upload_is_aborted(
    client: AsyncClient,
    listen: Listen,
    until: Until,
    bucket: tuple[Bucket, S3Store],
    times: int,
    sent: int,
) -> None:
    url = await listen(lambda _: (answer(PNG[:sent], length=len(PNG)), b""))
    call = client.download(Output(url=f"{url}/a"), ObstoreSink(bucket[1]))
    running = asyncio.create_task(call)
    await until(lambda: bucket[0].open and (sent == 5000 or bucket[0].parts))
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (bucket[0].open, bucket[0].objects) == ({}, {})
    assert client.stats.in_flight == 0


async def test_a_store_that_gives_up_late_is_a_download_error(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put_async(_store: Any, _path: str, chunks: Any, **_: Any) -> None:
        await anext(aiter(chunks))
        raise NotImplementedError("attributes")

    monkeypatch.setattr(obstore, "put_async", put_async)
    with pytest.raises(DownloadError, match="the sink failed: NotImplementedError: attributes"):
        await client.download(Output(text="a", title="b"), ObstoreSink(MemoryStore()))


@pytest.fixture
def memory() -> MemoryFileSystem:
    """Return an empty file system in memory."""
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.store.clear()
    return memory


async def test_a_result_in_fsspecs_memory(
    client: AsyncClient, listen: Listen, memory: MemoryFileSystem
) -> None:
    url = await listen(lambda _: answer(PNG))
    [found] = await client.download(Output(url=f"{url}/a"), FsspecSink(memory, "june/first/"))
    assert re.fullmatch(r"memory://june/first/a-\w{8}\.png", found)
    assert memory.cat(found) == PNG


async def test_a_result_in_an_fsspec_directory(
    client: AsyncClient, listen: Listen, tmp_path: Path
) -> None:
    """Which is made if it is missing."""
    url = await listen(lambda _: answer(PNG))
    sink = FsspecSink(fsspec.filesystem("file"), f"{tmp_path}/new/")
    [found] = await client.download(Output(url=f"{url}/a"), sink)
    [path] = (tmp_path / "new").iterdir()
    assert (found, path.read_bytes()) == (f"file://{path}", PNG)


async def test_nothing_of_a_break_reaches_an_fsspec_file_system(
    connect: Connect, listen: Listen, memory: MemoryFileSystem
) -> None:
    replies = [answer(PNG[:2_000_000], length=len(PNG)), answer(PNG)]
    url = await listen(lambda _: replies.pop(0))
    sink = FsspecSink(memory, "a/")
    with pytest.raises(DownloadError):
        await connect(retry=ONCE).download(Output(url=f"{url}/a"), sink)
    assert memory.find("/") == []
    [found] = await connect().download(Output(url=f"{url}/a"), sink)
    assert memory.find("/") == [found.removeprefix("memory:/")]


class Full(MemoryFileSystem):  # type: ignore[misc] # fsspec is not typed
    """A file system that fails once it has stored some bytes of a file."""

    store: ClassVar[dict[str, Any]] = {}
    room: ClassVar[int] = 0

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        content = Path(lpath).read_bytes()
        if self.room >= 0:
            self.pipe_file(rpath, content[: self.room])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("room", "kept"), [(-1, 0), (0, 0), (4096, 0)])
async def test_a_part_of_a_result_is_removed_from_an_fsspec_file_system(
    client: AsyncClient, listen: Listen, monkeypatch: pytest.MonkeyPatch, room: int, kept: int
) -> None:
    monkeypatch.setattr(Full, "room", room)
    full = Full(skip_instance_cache=True)
    full.store.clear()
    url = await listen(lambda _: answer(PNG))
    with pytest.raises(DownloadError, match="No space left on device"):
        await client.download(Output(url=f"{url}/a"), FsspecSink(full, "a/"))
    assert len(full.find("/")) == kept


async def test_an_earlier_copy_outlives_a_failure(
    client: AsyncClient, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Full, "room", -1)
    full = Full(skip_instance_cache=True)
    full.store.clear()
    output = Output(url=f"{await listen(lambda _: answer(PNG))}/a", out_task_id="a")
    full.pipe_file("/a-1.png", b"an earlier copy")
    with pytest.raises(DownloadError, match="No space left on device"):
        await client.download(output, FsspecSink(full))
    assert full.cat("/a-1.png") == b"an earlier copy"


async def test_a_full_disk_behind_a_sink_stops_a_batch(
    service: FakeService, client: AsyncClient
) -> None:
    sink = FsspecSink(Full(skip_instance_cache=True))
    rows = [("nano_banana", {"prompt": f"{n}"}) for n in range(100)]
    batch = client.run_many(rows, download_to=sink, window=4)
    outcomes = [outcome async for outcome in batch]
    assert isinstance(batch.stopped, DownloadError)
    assert len(outcomes) == len(service.charges) <= 2 * 4


async def test_a_sink_can_be_sent_to_another_process(client: AsyncClient, tmp_path: Path) -> None:
    pickled = pickle.dumps(FsspecSink(fsspec.filesystem("file"), f"{tmp_path}/"))
    sink = pickle.loads(pickled)  # noqa: S301 - made here
    [found] = await client.download(Output(text="a"), sink)
    assert found.startswith(f"file://{tmp_path}/")


class Cloud(MemoryFileSystem):  # type: ignore[misc] # fsspec is not typed
    """A file system that keeps content types."""

    protocol = ("s3", "s3a")
    store: ClassVar[dict[str, Any]] = {}
    types: ClassVar[list[str]] = []

    def put_file(self, lpath: str, rpath: str, *, ContentType: str, **_: Any) -> None:  # noqa: N803
        self.types.append(ContentType)
        super().put_file(lpath, rpath)


async def test_content_types_where_fsspec_takes_them(
    service: FakeService, client: AsyncClient
) -> None:
    service.script("result", Fault.ok())
    task = await client.run(SubmitRequest("nano_banana", {}, out_task_id="fox"))
    await client.download(task, FsspecSink(Cloud()))
    assert Cloud.types == ["image/png"]


async def test_a_batch_into_a_sink(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Named by a template; what the ledger knows to be stored is not fetched again."""
    sink = Recorder()
    rows = [{"prompt": f"fox {n}/2", "shot": n} for n in (1, 2)]

    async def run() -> list[Any]:
        async with Ledger(tmp_path / "run.db") as ledger:
            batch = client.run_many(
                rows,
                request=lambda row: ("nano_banana", {"prompt": row["prompt"]}),
                ledger=ledger,
                ordered=True,
                download_to=sink,
                name="{index:02}-{shot:03}-{prompt:.5}-{model}",
            )
            return [outcome async for outcome in batch]

    made = [outcome.paths for outcome in await run()]
    names = (r"kept:00-001-fox 1-nano_banana-\w{8}.png", r"kept:01-002-fox 2-nano_banana-\w{8}.png")
    assert all(re.fullmatch(name, place) for name, (place,) in zip(names, made, strict=True))
    sink.stored.clear()
    assert [outcome.paths for outcome in await run()] == made
    assert sink.stored == {}
    assert len(service.charges) == 2


async def test_names_in_a_batch(service: FakeService, client: AsyncClient, tmp_path: Path) -> None:
    """Of several outputs and of equal prompts; a typed model has a prompt, too."""
    service.outputs = 2
    model = models.NanoBanana(prompt="Red Fox")
    batch = client.run_many([model, model], ordered=True, download_to=tmp_path, name="{prompt}")
    names = [path.name for outcome in [each async for each in batch] for path in outcome.paths]
    assert sorted(names) == ["Red Fox-1-2.png", "Red Fox-1.png", "Red Fox-2-2.png", "Red Fox-2.png"]
    batch = client.run_many([model], download_to=tmp_path, name=lambda item: f"{{{item.prompt}}}")
    names = [path.name for outcome in [each async for each in batch] for path in outcome.paths]
    assert names == ["{Red Fox}-1.png", "{Red Fox}-2.png"]


async def test_a_name_that_cannot_be_made_costs_nothing(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A template is read before the first submit, and its fields before each."""
    for name in ("{prompt.__class__}", "a/b"):
        with pytest.raises(ValueError, match="name m"):
            client.run_many([], download_to=tmp_path, name=name)
    with pytest.raises(ValueError, match="to must be a directory or a Sink, got the URL"):
        client.run_many([], download_to="s3://bucket")
    rows = [{"shot": 1}, {}]
    batch = client.run_many(
        rows,
        request=lambda _: ("nano_banana", {"prompt": "a"}),
        ordered=True,
        download_to=tmp_path,
        name="{shot}",
    )
    good, bad = [outcome async for outcome in batch]
    assert [path.name for path in good.paths] == ["1.png"]
    assert str(bad.error).startswith("name has no field shot; the fields are index, model, n, ")
    assert len(service.charges) == 1
