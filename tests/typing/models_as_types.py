"""What type checkers accept and reject about models: an unused ignore is an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import io
from pathlib import Path

from aireiter_async import Output, models
from aireiter_async.models import Model, NanoBanana, Seedance2, Seedance15Pro, Suno


def accepted(output: Output) -> list[Model]:
    size: str = Seedance15Pro(prompt="x", aspect_ratio="16:9", video_length=5).size
    medium: str = models.MODELS["suno"].MEDIUM
    params: dict[str, object] = models.build("suno", {"prompt": size + medium}).to_params()
    return [
        models.Seedance2(prompt=str(params), type="all_reference", video_length="5"),
        Seedance2(prompt="x", type="all_reference", video_length=5),
        NanoBanana(prompt="x", image_url="https://a.io/b", variant="nano_banana_plus"),
        NanoBanana(prompt="x", image_url=["https://a.io/b"], aspect_ratio="21:9"),
        NanoBanana(prompt="x", image_url=Path("cat.png")),
        NanoBanana(prompt="x", image_url=[Path("cat.png"), b"png", io.BytesIO(), output]),
        Seedance15Pro(prompt="x", aspect_ratio="16:9", image_url=output),
    ]


def rejected() -> None:
    Seedance15Pro(prompt="x", aspect_ratio="1:1")  # type: ignore[arg-type]
    Seedance15Pro(prompt="x", aspect_ratio="16:9", image_url=b"png")  # type: ignore[arg-type]
    Seedance15Pro(prompt="x")  # type: ignore[call-arg]
    Seedance15Pro(promt="x", aspect_ratio="16:9")  # type: ignore[call-arg]
    Seedance15Pro("x", "16:9")  # type: ignore[call-arg]
    Seedance2(prompt="x", type="all_reference", video_length=5.5)  # type: ignore[arg-type]
    NanoBanana(prompt="x", image_url=io.StringIO())  # type: ignore[arg-type]
    Suno(prompt="x", custom_mode="yes")  # type: ignore[arg-type]
    Suno(prompt="x").prompt = "y"  # type: ignore[misc]
    models.Seedance16Pro  # type: ignore[attr-defined]  # noqa: B018
