"""What a type checker says of the models, asked with mypy."""

import re
import subprocess
import sys

import pytest

HEAD = """
from aireiter_async import models
from aireiter_async.models import NanoBanana, Seedance15Pro, Seedance2, Suno
"""
CORRECT = [
    'Seedance15Pro(prompt="x", aspect_ratio="16:9")',
    'Seedance15Pro(prompt="x", aspect_ratio="9:16", video_length=5, generate_audio=True).size',
    'models.Seedance2(prompt="x", type="all_reference", video_length="5")',
    'NanoBanana(prompt="x", image_url="https://a/b", variant="nano_banana_plus")',
    'NanoBanana(prompt="x", image_url=["https://a/b"], aspect_ratio="21:9")',
    'models.MODELS["suno"].MEDIUM == "audio"',
    'models.build("suno", {"prompt": "x"}).to_params()["prompt"]',
]
WRONG = [
    ('Seedance15Pro(prompt="x", aspect_ratio="1:1")', "incompatible type"),
    ('Seedance15Pro(prompt="x")', "Missing named argument"),
    ('Seedance15Pro(promt="x", aspect_ratio="16:9")', "Unexpected keyword argument"),
    ('Seedance15Pro("x", "16:9")', "Too many positional"),
    ('Seedance2(prompt="x", type="all_reference", video_length=5.5)', "incompatible type"),
    ('Suno(prompt="x", custom_mode="yes")', "incompatible type"),
    ('Suno(prompt="x").prompt = "y"', "read-only"),
    ("models.Seedance16Pro", "no attribute"),
]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Give what mypy, at its strictest, says of each line of one program."""
    folder = tmp_path_factory.mktemp("typing")
    program = folder / "program.py"
    lines = [*HEAD.splitlines(), *CORRECT, *(line for line, _ in WRONG)]
    program.write_text("\n".join(lines), encoding="utf-8")
    options = ["--strict", "--config-file=", f"--cache-dir={folder}", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(program)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)  # noqa: S603
    assert done.stderr == ""
    said: dict[str, list[str]] = {line: [] for line in lines}
    for number, words in re.findall(r"program\.py:(\d+): error: (.+)", done.stdout):
        said[lines[int(number) - 1]].append(words)
    return said


@pytest.mark.parametrize("line", CORRECT)
def test_a_correct_use_is_accepted(line: str, complaints: dict[str, list[str]]) -> None:
    """What works at run time has no complaint."""
    assert complaints[line] == []


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_a_wrong_use_is_refused(line: str, words: str, complaints: dict[str, list[str]]) -> None:
    """What is refused at run time is refused before it."""
    assert words in " ".join(complaints[line])
