"""Options that several commands share."""

import math
import re
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from attrs import field, frozen
from cyclopts import Parameter

from aireiter_async import AsyncClient, SubmitRequest, models
from aireiter_async.cli._errors import UsageError, reason, usage
from aireiter_async.cli._params import (
    make_request,
    name_files,
    parameter_types,
    read_object,
    read_pairs,
    split_pairs,
)

Format: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "txt"]

_MODEL_NAME: Final = re.compile(r"[\w.:/-]+")
_PROMPT: Final = Parameter(name=("--prompt", "-p"), allow_leading_hyphen=True)
_MODEL: Final = Parameter(name=("--model", "-m"))
_DOWNLOAD: Final = Parameter(name=("--download", "-o"))


@frozen(kw_only=True)
class Connection:
    """The connection options of a command.

    Attributes:
        api_key: The API key. It is safer in the environment, as AIREITER_API_KEY:
            other users can see the options of a process.
        base_url: The service; default: AIREITER_BASE_URL, or
            https://aireiter.com.
        user_agent: The User-Agent, in case the CDN rejects this package's own.
        proxy: URL of an http or https proxy; default: the environment's
            HTTPS_PROXY or HTTP_PROXY, except for hosts in NO_PROXY and this machine.
        allow_http: Allow an http:// base URL on another machine, to which the
            key travels unencrypted.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    user_agent: str | None = None
    proxy: str | None = field(default=None, repr=False)
    allow_http: bool = False

    def client(self, **options: Any) -> AsyncClient:
        """Create the client; *options* are those of `AsyncClient`.

        Raises:
            UsageError: An option is missing or invalid.
        """
        try:
            with usage():
                return AsyncClient(
                    self.api_key,
                    base_url=self.base_url,
                    user_agent=self.user_agent,
                    proxy=self.proxy,
                    allow_http=self.allow_http,
                    **options,
                )
        except UsageError as error:
            if self.base_url is not None:
                raise
            text = str(error).replace("--base-url", "AIREITER_BASE_URL")
            raise UsageError(text) from error.__cause__


@frozen(kw_only=True)
class SubmitOptions:
    """The options of a submit.

    Attributes:
        prompt: The parameter prompt.
        param: A parameter, NAME=VALUE: the same as without the option.
        params: The parameters as a JSON object, or @FILE, or @- for standard
            input; NAME=VALUE and --prompt override it.
        id: The task's ID: 1 to 64 characters of A-Z, a-z, 0-9, _ and -, never
            used before. Default: a random one.
        maybe_sent: An earlier command may have submitted this --id: look that
            task up first.
        channel: base, plus, advanced or max, if the model has it.
        callback_url: URL that the service calls when the task ends.
        metadata: A JSON object, or @FILE, that the service echoes.
        max_image_side: Shrink local images (@FILE) whose longer side has more pixels;
            needs the extra images.
        unchecked: Do not validate the parameters, in case this release's catalogue
            is out of date.
    """

    prompt: Annotated[str | None, _PROMPT] = None
    param: tuple[str, ...] = ()
    params: str | None = None
    id: str | None = None
    maybe_sent: bool = False
    channel: str | None = None
    callback_url: str | None = None
    metadata: str | None = None
    max_image_side: int | None = None
    unchecked: bool = False

    def request(
        self, model: str, pairs: Sequence[str], note: Callable[[str], None]
    ) -> SubmitRequest:
        """Build the request, validated if *model* is known.

        Args:
            model: The model's name.
            pairs: Parameters, NAME=VALUE.
            note: Called with notes for the user.

        Raises:
            InvalidParamsError: The parameters are not as documented.
            UsageError: Another option is invalid.
        """
        check_numbers(max_image_side=self.max_image_side)
        if self.maybe_sent and self.id is None:
            raise UsageError("--maybe-sent needs --id, the ID that may have been submitted")
        with usage():
            return self._make(model, (*pairs, *self.param), note)

    def _make(self, model: str, pairs: Sequence[str], note: Callable[[str], None]) -> SubmitRequest:
        if not _MODEL_NAME.fullmatch(model):
            raise UsageError(
                f"MODEL must be a model's name, got {reprlib.repr(model)}; list them with: "
                "aireiter models"
            )
        name = model if self.channel is None else models.with_channel(model, self.channel)
        given = {} if self.params is None else read_object("--params", self.params)
        named = read_pairs(split_pairs(pairs), parameter_types(name))
        if self.prompt is not None:
            if "prompt" in named:
                raise UsageError("prompt=... and --prompt both set the prompt: remove one of them")
            named["prompt"] = self.prompt
        given |= named
        given = name_files(name, given, Path())
        changes: dict[str, Any] = {"callback_url": self.callback_url}
        if self.id is not None:
            changes["out_task_id"] = self.id
        if self.metadata is not None:
            changes["metadata"] = read_object("--metadata", self.metadata)
        side = self.max_image_side
        checked = None if self.unchecked else note
        return make_request(name, given, changes, max_side=side, note=checked)


@frozen(kw_only=True)
class BatchOptions:
    """The options of a batch.

    Attributes:
        model: The model for rows without one.
        each: NAME=VALUE,VALUE: run every row with each of these values of a parameter, or
            of model; several options make all combinations. Quote a value that has a
            comma: 'style="oil, warm",ink'
        each_where_known: Omit the parameter of --each for models that do not have it.
        repeat: Run each request, or each combination, this many times.
        yes: Confirm that --each and --repeat make more than 10,000 tasks.
        only: Run only the requests whose task IDs are in this file, one per line, as
            exported by the report page; the ledger must have these tasks.
        format: jsonl, json, csv, tsv or txt; default: by the file's name, then by
            its content.
        keep_columns: Accept columns and keys that do not belong to a request, and
            copy them to --results.
        max_image_side: Shrink local images (@FILE) whose longer side has more pixels;
            needs the extra images.
        unchecked: Do not validate the parameters, in case this release's catalogue
            is out of date.
        ledger: The record of the batch, an SQLite file; default: the file's name
            and .db, beside it. The same command with the same ledger finishes
            the rest.
        rebind: Accept a ledger of another service, such as one that has moved.
        results: Write one row per request to this file as it ends: prompt, parameters,
            status, outputs, files, credits, error. CSV if the name ends in .csv,
            else JSON Lines. It is rewritten on each run, including rows that
            the ledger already knows.
        download: Save the results in this directory.
        name: The name of a row's files, without suffix; default: the task's ID.
            {index}, {line}, {prompt}, {model}, {out_task_id}, {n} (the output's
            number), kept columns and the names of --each, with a width or a maximum
            length, as in {index:04}-{prompt:.30}.
        report: Write an HTML page of the ledger into the directory of the results, every
            10 seconds and at the end.
        concurrency: Maximum concurrent HTTP exchanges; default 64.
        window: Maximum tasks outstanding; default: four times
            --concurrency, at least 256.
        max_rate: Maximum requests per second.
        max_credits: Maximum credits to spend, including earlier runs with the
            same ledger.
        timeout: Seconds to wait for each task.
        retry_failed: Submit tasks that failed or were rejected in an earlier run
            again, under new IDs.
        dry_run: Validate every row and send nothing; needs no key. Exits with 1 if a
            row has a local file that cannot be used.
        estimate: Like --dry-run, and print what the new rows will cost at the prices
            in the ledger, assuming that texts and media do not affect the price.
        buy_one: With --estimate, run one row of each kind of unknown price. It is
            charged, but not again by the batch.
    """

    model: Annotated[str | None, _MODEL] = None
    each: tuple[str, ...] = ()
    each_where_known: bool = False
    repeat: int = 1
    yes: bool = False
    only: Path | None = None
    format: Format | None = None
    keep_columns: bool = False
    max_image_side: int | None = None
    unchecked: bool = False
    ledger: Path | None = None
    rebind: bool = False
    results: Path | None = None
    download: Annotated[Path | None, _DOWNLOAD] = None
    name: str | None = None
    report: bool = False
    concurrency: int = 64
    window: int | None = None
    max_rate: float | None = None
    max_credits: float | None = None
    timeout: float | None = None
    retry_failed: bool = False
    dry_run: bool = False
    estimate: bool = False
    buy_one: bool = False

    def check(self) -> None:
        """Check the values.

        Raises:
            UsageError: One is out of range.
        """
        check_numbers(
            repeat=self.repeat,
            concurrency=self.concurrency,
            window=self.window,
            max_image_side=self.max_image_side,
            max_credits=self.max_credits,
            timeout=self.timeout,
        )
        if self.each_where_known and not self.each:
            raise UsageError("--each-where-known needs --each")
        if self.buy_one and not self.estimate:
            raise UsageError("--buy-one needs --estimate")
        if self.max_rate is not None and not 0 < self.max_rate < float("inf"):
            raise UsageError(f"--max-rate must be more than 0, got {self.max_rate:g}")


@frozen(kw_only=True)
class DoctorOptions:
    """The options of the doctor.

    Attributes:
        download: The directory that results would be saved in; default: the current
            directory.
        ledger: A ledger to check; default: those in the current directory and in --download.
        probe: Find out what the service does not document, with one or two tasks of
            this model, which are charged.
        yes: With --probe, spend the credits without asking.
        max_credits: With --probe, maximum credits to spend; only a first task of unknown
            price can exceed it.
    """

    download: Annotated[Path | None, _DOWNLOAD] = None
    ledger: Path | None = None
    probe: str | None = None
    yes: bool = False
    max_credits: float | None = None


def check_numbers(**numbers: float | None) -> None:
    """Check options that must be at least 0, or 1 if they are integers.

    Raises:
        UsageError: One is not.
    """
    for name, value in numbers.items():
        if value is None:
            continue
        least = 1 if isinstance(value, int) else 0
        if not (math.isfinite(value) and value >= least):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} must be at least {least}, got {value:g}")


def make_directory(option: str, path: Path | None) -> None:
    """Create a directory for results, before anything is paid for.

    Raises:
        UsageError: It cannot be created.
    """
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{option} must be a directory, and {path} is a file") from error
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be created: {reason(error)}") from error
