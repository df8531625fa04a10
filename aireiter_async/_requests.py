"""Requests: frozen values that fix the ID and the bytes to send; no I/O."""

import os
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final, Self

import attrs
from attrs import field, frozen

from aireiter_async import models
from aireiter_async._encoding import Encoded, encode_mapping, quote
from aireiter_async.models._base import Model

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_URL: Final = re.compile(r"https?://[!-~]+")


def is_id(text: str) -> bool:
    """Return whether the service accepts *text* as an ID."""
    return _ID.fullmatch(text) is not None


def check_id(out_task_id: object) -> str:
    """Return *out_task_id* if it is a valid ID.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not 1 to 64 characters of ``[A-Za-z0-9_-]``.
    """
    if not isinstance(out_task_id, str):
        raise TypeError(f"out_task_id must be a str, got {type(out_task_id).__name__}")
    if not is_id(out_task_id):
        raise ValueError(
            "out_task_id must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', "
            f"got {reprlib.repr(out_task_id)}"
        )
    return out_task_id


@frozen(init=False, repr=False)
class SubmitRequest:
    """A request for one task: a value with the same ID and bytes on every attempt.

    The params are encoded on construction: changing the mapping, or a list in it,
    afterwards affects neither what is sent nor `params`.

    Attributes:
        model: The model's name, including a channel's suffix. Names unknown to
            this release are passed through.
        out_task_id: 1 to 64 characters of ``[A-Za-z0-9_-]``, generated when not
            given; the only handle on the task; use each ID once per API key.
        callback_url: URL that the service calls when the task ends; documented
            for five models only.

    Args:
        model: See above.
        params: A mapping of JSON values, sent unchecked, or an instance of a
            class in `aireiter_async.models`.
        out_task_id: See above; None generates one.
        callback_url: See above.
        metadata: Echoed back by the service; documented for five models only.
        generated_id: Internal: the generated ID, by which `generated` recognises it.

    Raises:
        TypeError: An argument is of the wrong type, or JSON cannot represent it.
        ValueError: An argument is out of range.
    """

    model: str
    _params: Encoded | Model = field(eq=False)
    out_task_id: str
    callback_url: str | None
    _metadata: Encoded | None = field(hash=False)
    _generated_id: str | None = field(eq=False)
    _body: Encoded = field(init=False, hash=False)

    def __init__(
        self,
        model: str,
        params: Mapping[str, Any] | Model,
        out_task_id: str | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        generated_id: str | None = None,
    ) -> None:
        if type(model) is not str and not isinstance(model, str):
            raise TypeError(f"model must be a str, got {type(model).__name__}")
        if not model or not model.isprintable() or model[0] == " " or model[-1] == " ":
            raise ValueError(
                f"model must be a model's name such as 'nano_banana', got {reprlib.repr(model)}"
            )
        kept: Encoded | Model
        if type(params) is dict:  # the common case, without the checks below
            kept = body = encode_mapping("params", params)
        elif isinstance(params, Model):
            if model not in params.VARIANTS:
                raise _wrong_class(model, params)
            kept, body = params, encode_mapping("params", params.json_params())
        else:
            kept = body = _encoded("params", params)
        if out_task_id is None:
            # From the system's random source: timestamps collided in the wild.
            out_task_id = generated_id = os.urandom(16).hex()
        elif out_task_id != generated_id:
            check_id(out_task_id)
        if callback_url is not None:
            _check_url(callback_url)
        _set_model(self, model)
        _set_params(self, kept)
        _set_id(self, out_task_id)
        _set_callback_url(self, callback_url)
        _set_metadata(self, None if metadata is None else _encoded("metadata", metadata))
        _set_generated_id(self, generated_id)
        _set_body(self, body)

    @property
    def params(self) -> Mapping[str, Any] | Model:
        """The models instance, or a copy of the params as given."""
        return self._params if isinstance(self._params, Model) else self._body.load()

    @property
    def metadata(self) -> Mapping[str, Any] | None:
        """A copy of the metadata as given."""
        return None if self._metadata is None else self._metadata.load()

    @property
    def generated(self) -> bool:
        """Whether the ID was generated, so that a ledger may replace it with a stable one."""
        return self.out_task_id == self._generated_id

    @property
    def inputs(self) -> tuple[Mapping[str, Any], ...]:
        """The local files that were read for it: of each param, path, size and sha256."""
        return self._body.inputs

    @property
    def large(self) -> bool:
        """Whether to encode in a thread: over 64 KB of text."""
        return self._body.text is None or (
            self._metadata is not None and self._metadata.text is None
        )

    def with_id(self, out_task_id: str, *, generated: bool = False) -> Self:
        """Return the same request under another ID.

        Raises:
            TypeError: The ID is not a string.
            ValueError: The ID is malformed.
        """
        twin = object.__new__(type(self))
        _set_model(twin, self.model)
        _set_params(twin, self._params)
        _set_id(twin, check_id(out_task_id))
        _set_callback_url(twin, self.callback_url)
        _set_metadata(twin, self._metadata)
        _set_generated_id(twin, out_task_id if generated else None)
        _set_body(twin, self._body)
        return twin

    def encode(self) -> bytes:
        """Return the body of the submit: the same bytes for every attempt."""
        head = f'{{"model":{quote(self.model)},"out_task_id":"{self.out_task_id}"'
        if self.callback_url is not None:
            head += f',"callback_url":{quote(self.callback_url)}'
        params = self._body.text or self._body.encode()
        if self._metadata is None:
            return b'%b,"params":%b}' % (head.encode(), params)
        return b'%b,"metadata":%b,"params":%b}' % (head.encode(), self._metadata.encode(), params)

    def encode_content(self) -> str:
        """Return canonical JSON of model, params and metadata, which identifies the content.

        Keys are sorted and data URIs replaced by their digests; the ID and the
        callback URL, which may hold a secret, are omitted.
        """
        more = b"" if self._metadata is None else b'"metadata":%b,' % self._metadata.digest_media()
        names = more, quote(self.model).encode(), self._body.digest_media()
        return (b'{%b"model":%b,"params":%b}' % names).decode()

    def __repr__(self) -> str:
        if not hasattr(self, "_body"):  # shown in a traceback during construction
            return "<SubmitRequest>"
        params = self._body.values if self._body.text is None else self.params
        shown = {"model": self.model, "params": params, "out_task_id": self.out_task_id}
        if self.callback_url is not None:
            shown["callback_url"] = _hide_path(self.callback_url)
        if self._metadata is not None:
            shown["metadata"] = self.metadata
        return f"SubmitRequest({', '.join(f'{k}={reprlib.repr(v)}' for k, v in shown.items())})"


# The class is frozen. `object.__setattr__` would do, too, but has to find each slot by its name.
(
    _set_model,
    _set_params,
    _set_id,
    _set_callback_url,
    _set_metadata,
    _set_generated_id,
    _set_body,
) = (vars(SubmitRequest)[each.name].__set__ for each in attrs.fields(SubmitRequest))


def _encoded(name: str, mapping: object) -> Encoded:
    if isinstance(mapping, Encoded):  # from attrs.evolve
        return mapping
    if not isinstance(mapping, (dict, Mapping)):
        instead = " or an instance of a class in aireiter_async.models" if name == "params" else ""
        raise TypeError(f"{name} must be a mapping{instead}, got {type(mapping).__name__}")
    return encode_mapping(name, mapping)


def _wrong_class(model: str, params: Model) -> ValueError:
    return ValueError(
        f"model {model!r} does not take the params of {type(params).__name__}: "
        f"use one of {', '.join(params.VARIANTS)}"
    )


def _check_url(callback_url: object) -> None:
    if not isinstance(callback_url, str):
        raise TypeError(f"callback_url must be a str, got {type(callback_url).__name__}")
    if not _URL.fullmatch(callback_url):
        raise ValueError(
            "callback_url must be an http or https URL of ASCII characters, "
            f"got {reprlib.repr(_hide_path(callback_url))}"
        )


def _hide_path(url: str) -> str:
    """Return a URL with its scheme and host only: the rest may hold a secret."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    return url if rest == host else f"{scheme}{slashes}{host}/..."


def as_request(
    request: SubmitRequest | Model | str,
    params: Mapping[str, Any] | None = None,
    *,
    out_task_id: str | None = None,
    channel: str | None = None,
    callback_url: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SubmitRequest:
    """Make a request from the arguments of `AsyncClient.submit`.

    Raises:
        TypeError: An argument is of the wrong type, or *request* already has params.
        ValueError: The model has no such *channel*, an ID is malformed, or the
            params are not as documented.
    """
    if isinstance(request, Model) and params is None:
        name = request.variant or request.MODEL
        model = name if channel is None else models.with_channel(name, channel)
        return SubmitRequest(model, request, out_task_id, callback_url, metadata)
    if isinstance(request, str):
        given: Any = params  # checked where it is used
        known = request in models.MODELS
        made = models.build(request, given) if known else SubmitRequest(request, given)
        return as_request(
            made,
            out_task_id=out_task_id,
            channel=channel,
            callback_url=callback_url,
            metadata=metadata,
        )
    if params is not None:
        raise TypeError("pass params only with a model's name: a request has its own")
    if isinstance(request, SubmitRequest):
        options: dict[str, Any] = {
            "model": None if channel is None else models.with_channel(request.model, channel),
            "out_task_id": out_task_id,
            "callback_url": callback_url,
            "metadata": metadata,
        }
        changes = {name: value for name, value in options.items() if value is not None}
        return attrs.evolve(request, **changes) if changes else request
    raise TypeError(
        "request must be a SubmitRequest, an instance of a class in aireiter_async.models "
        f"or a model's name, got {type(request).__name__}"
    )
