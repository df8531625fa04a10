"""What ``aireiter models`` shows."""

import json
import shlex
from typing import Any

import pytest

from aireiter_async import models
from aireiter_async.cli import main
from aireiter_async.cli._app import parse


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return what the command shows."""
    assert main(["models", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """Return what the command tells a program."""
    return json.loads(shown(capsys, *argv, "--json"))


def test_all_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = shown(capsys).splitlines()
    assert header.split("  ")[0] == "model"
    assert {line.split()[0] for line in lines} == {cls.MODEL for cls in models.MODELS.values()}
    assert len(lines) == len({*models.MODELS.values()})
    assert [line.split()[1] for line in lines] == sorted(
        (line.split()[1] for line in lines), key=["image", "video", "audio", "text"].index
    )
    assert all(line == line.rstrip() for line in lines)
    row = next(line for line in lines if line.startswith("veo3_1 "))
    assert row.split() == ["veo3_1", "video", "base", "plus", "prompt"]


def test_programs_get_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """The list is one document, channels told apart from other variants."""
    listed = {each["model"]: each for each in document(capsys)}
    assert listed["veo3_1"]["channels"] == ["base", "plus"]
    assert listed["seedance2"]["variants"] == ["seedance2_face"]
    assert listed["seedance_1_5_pro"] == {
        "model": "seedance_1_5_pro",
        "medium": "video",
        "channels": [],
        "variants": [],
        "required": ["prompt", "aspect_ratio"],
        "class": "Seedance15Pro",
        "summary": listed["seedance_1_5_pro"]["summary"],
        "doc": "https://docs.aireiter.com/en/api-reference/videos/seedance-1-5-pro/generation",
    }


def test_one_model_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters, types, ranges, defaults, cases, the page and an example for both worlds."""
    text = shown(capsys, "seedance2_5")
    assert "https://docs.aireiter.com/en/api-reference/videos/seedance2_5/generation" in text
    row = {line.split()[0]: line for line in text.splitlines() if line}
    assert row["prompt"].split()[1:3] == ["string", "required"]
    assert row["video_length"].split()[1:3] == ["integer", "5"]
    assert "4 to 30" in row["video_length"]
    assert "true" in row["generate_audio"]
    assert "only with type=first_last_frame" in row["end_image_url"]
    assert "models.Seedance25(prompt=" in row["python"]
    assert "aireiter run seedance2_5 prompt='A calm" in row["command"]


@pytest.mark.parametrize("model", sorted(models.MODELS))
def test_every_model_is_shown_with_its_rules(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    text, told = shown(capsys, model), document(capsys, model)
    row = {line.split(maxsplit=1)[0]: line for line in text.splitlines() if line}
    assert [each["name"] for each in told["parameters"]] == [p.name for p in models.describe(model)]
    for each in models.describe(model):
        line = row[each.name]
        for case in filter(None, (each.required_when, each.only_when, each.needs)):
            assert f" with {case}" in line
    for sentence in models.MODELS[model].CONSTRAINTS:
        assert f"  {sentence}\n" in text
    assert told["constraints"] == [*models.MODELS[model].CONSTRAINTS]


def test_a_parameter_that_is_gone_from_the_documentation_is_shown_as_such(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is no longer documented is said to be so."""
    deprecated = next(
        name
        for name in models.MODELS
        if any(parameter.deprecated for parameter in models.describe(name))
    )
    assert "no longer documented" in shown(capsys, deprecated)


@pytest.mark.parametrize("model", sorted(models.MODELS))
def test_the_examples_shown_make_the_same_request(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    example = document(capsys, model)["example"]
    words = shlex.split(example["command"])
    assert words[:3] == ["aireiter", "run", model]
    command = parse(words[1:])
    assert command is not None
    action: Any = command.action
    _, name, pairs, options = action.args
    made = options.request(name, pairs, pytest.fail)
    expected = models.build(model, models.example(model))
    assert (made.model, made.params) == (model, expected)
    made = eval(example["python"], {"models": models})  # noqa: S307 - our own line
    assert (made.model_name, made) == (model, expected)
