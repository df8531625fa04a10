"""Valid requests to every model, drawn from what it says of itself."""

from typing import Any

from hypothesis import strategies as st

from aireiter_async import models
from aireiter_async.models import InvalidParamsError, Model, Parameter

URLS = (
    "https://example.com/a.png",
    "http://example.com/a,b.mp4?sign=1%2C2,3",
    "HTTPS://EXAMPLE.COM/x",
)
IMAGE = "data:image/png;base64,iVBORw0KGgo="
SIZES = ("1024x1024", "2048x1152", "1152x2048", "1600x1600")


def instances(model: str) -> st.SearchStrategy[Model]:
    return params(model).map(lambda drawn: models.build(model, drawn))


def params(model: str) -> st.SearchStrategy[dict[str, Any]]:
    described = models.describe(model)
    values = {each.name: _values(each) for each in described}
    required = {each.name: values[each.name] for each in described if each.required}
    optional = {each.name: values[each.name] for each in described if not each.required}
    drawn = st.fixed_dictionaries(required, optional=optional)
    spare = st.fixed_dictionaries({each.name: _values(each, most=1) for each in described})
    mended = st.tuples(drawn, spare).map(lambda pair: _mended(model, *pair))
    return mended.filter(lambda each: not _wrong(model, each))


def _mended(model: str, drawn: dict[str, Any], spare: dict[str, Any]) -> dict[str, Any]:
    for _ in range(4):
        wrong = _wrong(model, drawn)
        missing = {name: spare[name] for name in wrong if name not in drawn}
        drawn = {name: value for name, value in drawn.items() if name not in wrong} | missing
    return drawn


def _wrong(model: str, drawn: dict[str, Any]) -> set[str]:
    try:
        models.build(model, drawn)
    except InvalidParamsError as error:
        return {problem.param for problem in error.problems}
    return set()


def _values(parameter: Parameter, most: int | None = None) -> st.SearchStrategy[Any]:
    match parameter.type:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(int(parameter.minimum or 0), int(parameter.maximum or 2**31))
        case "number":
            return _numbers(parameter)
        case "string":
            return _texts(parameter)
        case "string[]":
            return _arrays(parameter, most)
        case _:
            return _texts(parameter) | _arrays(parameter, most)


def _numbers(parameter: Parameter) -> st.SearchStrategy[float]:
    least, most = parameter.minimum or 0, parameter.maximum or 1000
    if parameter.step is not None:
        step = parameter.step
        return st.integers(round(least / step), round(most / step)).map(lambda count: count * step)
    return st.integers(round(least + 0.5), int(most)) | st.floats(least, most)


def _texts(parameter: Parameter) -> st.SearchStrategy[str]:
    if parameter.allowed is not None:
        return st.sampled_from(parameter.allowed)
    if parameter.accepts is not None:
        return st.sampled_from([*URLS, IMAGE] if "data" in parameter.accepts else URLS)
    if parameter.min_pixels is not None:
        return st.sampled_from(SIZES)
    if parameter.minimum is not None:
        return st.integers(int(parameter.minimum), 400).map(str)
    most = min(parameter.max_length or 40, 40)
    texts = st.text(min_size=parameter.min_length or 0, max_size=most)
    return texts.map(lambda text: f"a{text}") if parameter.not_blank else texts


def _arrays(parameter: Parameter, most: int | None) -> st.SearchStrategy[list[str]]:
    return st.lists(
        _texts(parameter),
        min_size=parameter.min_items or most or 0,
        max_size=most or parameter.max_items or 3,
    )
