"""A task as HTML, for notebooks: small, whatever the service sent, and text never as markup."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_ENOUGH: Final = 100_000  # characters of HTML, after which the other outputs are only counted
_LONGEST_TEXT: Final = 2_000  # characters, before they are escaped
_LONGEST_URL: Final = 4_000  # of a URL; pictures within their URL are inlined up to this
_SIZE: Final = "max-width: 24em; max-height: 24em"


def task_html(task: Any) -> str:
    """Return a `Task` with its pictures and players; media are loaded from their URLs."""
    facts = [task.out_task_id, task.model, str(task.status)]
    credits_ = task.estimated_credits if task.credits_used is None else task.credits_used
    if credits_ is not None:
        facts.append(f"{credits_:g} credits{'' if task.credits_used is not None else ' estimated'}")
    parts = [f"<p>{' · '.join(_text(fact) for fact in facts if fact)}</p>"]
    prompt = _find(task.raw, "data", "input", "params", "prompt")
    if isinstance(prompt, str):
        parts.append(f"<p><i>{_text(prompt)}</i></p>")
    if task.error is not None:
        parts.append(f"<p><b>{_text(f'{task.error.code}: {task.error.message}')}</b></p>")
    for number, output in enumerate(task.outputs):
        if sum(map(len, parts)) > _ENOUGH:
            parts.append(f"<p>and {len(task.outputs) - number} more outputs</p>")
            break
        parts += _output(output)
    return f"<div>{''.join(parts)}</div>"


def _output(output: Any) -> Iterator[str]:
    if output.title:
        yield f"<p>{_text(output.title)}</p>"
    if output.text:
        yield f'<pre style="white-space: pre-wrap">{_text(output.text)}</pre>'
    if output.url is None:
        return
    url = _link(output.url)
    if url is None:
        size = f"{len(output.url) / 1e6:.1f} MB" if output.url[:5].lower() == "data:" else "a URL"
        yield f"<p>{_text(output.kind)}, {size}: save it with client.download</p>"
        return
    match output.kind:
        case "image":
            image = f'<img src="{url}" alt="{_text(output.kind)}" style="{_SIZE}" loading="lazy">'
            yield f'<a href="{url}" referrerpolicy="no-referrer">{image}</a>'
        case "video":
            poster = None if output.cover_url is None else _link(output.cover_url)
            cover = f' poster="{poster}"' if poster else ""
            yield f'<video src="{url}"{cover} controls preload="none" style="{_SIZE}"></video>'
        case "audio":
            yield f'<audio src="{url}" controls preload="none"></audio>'
        case _:
            yield f'<p><a href="{url}" referrerpolicy="no-referrer">{_text(output.kind)}</a></p>'


def _link(url: str) -> str | None:
    """Return a URL for an attribute, None if it is long or could run a script."""
    safe = url.lower().startswith(("https://", "http://", "data:image/png", "data:image/jpeg"))
    return escape(url) if safe and len(url) <= _LONGEST_URL else None


def _text(text: str) -> str:
    short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return escape(short.encode("utf-8", "replace").decode())


def _find(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
