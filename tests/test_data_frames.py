"""pandas, polars and pyarrow, in and out, with the code of the documentation."""

import ast
import asyncio
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, Ledger, models
from aireiter_async.testing import FakeService

pytestmark = pytest.mark.integrations
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
COLUMNS: dict[str, list[Any]] = {
    "prompt": [f"a cat, number {n}" for n in range(50)],
    "video_length": [4 + n % 9 for n in range(50)],
    "generate_audio": [n % 2 == 0 for n in range(50)],
}
Rows = Iterable[dict[str, Any]]
SOURCES: dict[str, Callable[[], Rows]] = {
    "pandas": lambda: pandas.DataFrame(COLUMNS).to_dict("records"),
    "polars": lambda: polars.DataFrame(COLUMNS).iter_rows(named=True),
    "pyarrow": lambda: (
        row for part in pyarrow.table(COLUMNS).to_batches(20) for row in part.to_pylist()
    ),
}


def make_request(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "seedance_1_5_pro", {**row, "aspect_ratio": "16:9"}


async def test_every_block_of_the_page_runs(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with service.client() as client:
        names: dict[str, Any] = {"client": client, "asyncio": asyncio, "models": models}
        text = PAGE.read_text(encoding="utf-8")
        for block in re.findall(r"^```py(?:thon)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            code = compile(block, "data", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)  # noqa: S307 - our own documentation
            if inspect.isawaitable(running):
                await running
    first, second = names["rows"]
    assert (first, second) == (
        {"prompt": "a heron", "aspect_ratio": "16:9", "seed": 17},
        {"prompt": "an otter"},
    )
    assert type(first["seed"]) is int
    for name in ("tasks.parquet", "tasks-again.parquet"):
        table = pyarrow.parquet.read_table(name)
        assert table.column("prompt").to_pylist() == ["a heron", "an otter"]
        assert table.column("state").to_pylist() == ["downloaded"] * 2
    assert names["frame"]["url"].notna().all()


@pytest.mark.parametrize("library", SOURCES)
async def test_rows_of_a_frame_are_items_of_a_batch(
    library: str, service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    async with Ledger(tmp_path / "run.db") as ledger:
        batch = client.run_many(SOURCES[library](), request=make_request, ledger=ledger)
        assert [outcome.ok async for outcome in batch] == [True] * 50
        tasks = [row async for row in ledger.rows()]
    assert len(service.charges) == 50
    frames = {
        "pandas": lambda: pandas.DataFrame(tasks).to_dict("list"),
        "polars": lambda: polars.DataFrame(tasks, infer_schema_length=None).to_dict(
            as_series=False
        ),
        "pyarrow": lambda: pyarrow.Table.from_pylist(tasks).to_pydict(),
    }
    columns: dict[str, list[Any]] = frames[library]()
    assert set(columns["prompt"]) == set(COLUMNS["prompt"])
    assert columns["credits_used"] == [1.0] * 50


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"video_length": pandas.Series([4]).iloc[0]},
            r"video_length .*convert it with \.item\(\)",
        ),
        ({"video_length": float("nan")}, "video_length .*leave the parameter out where"),
        ({"aspect_ratio": pandas.NA}, "aspect_ratio .*leave the parameter out where"),
        ({"prompt": pandas.NaT}, "prompt .*leave the parameter out where"),
    ],
)
async def test_what_only_a_frame_has_is_rejected_with_what_to_do(
    params: dict[str, Any], message: str, service: FakeService, client: AsyncClient
) -> None:
    request = {"prompt": "a cat", "aspect_ratio": "16:9", **params}
    with pytest.raises(ValueError, match=message):
        await client.submit("seedance_1_5_pro", request)
    named = r"params\.\w+ .*(use \.tolist\(\)|leave it out where)"
    with pytest.raises((TypeError, ValueError), match=named):
        await client.submit("a_model_of_next_week", request)
    assert service.requests == []
