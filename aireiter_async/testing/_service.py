"""FakeService: a fake of the API on a real socket."""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from aireiter_async.testing._account import Account, Charge, FakeTask
from aireiter_async.testing._api import Api, RecordedRequest
from aireiter_async.testing._callbacks import Callback, Callbacks
from aireiter_async.testing._faults import Endpoint, Fault, FaultPlan
from aireiter_async.testing._options import Options
from aireiter_async.testing._site import Site

if TYPE_CHECKING:
    from aireiter_async._client import AsyncClient


@attrs.define(kw_only=True, eq=False, repr=False)
class FakeService(Options):
    """A fake of the AIReiter API, on a real socket of 127.0.0.1.

    ::

        async with FakeService() as service, service.client() as client:
            task = await client.run(request)
        assert len(service.charges) == 1

    It implements submit, query and balance as documented at https://docs.aireiter.com, serves
    result files, responds to any other route with marketing HTML in a 200, and rejects the
    User-Agent of Python's urllib, as the live service has been seen to do. What the documentation
    leaves open is an option. Options that are read for every request (all except the ports,
    *results_ssl*, *max_rate*, *burst*, *faults*, *seed* and *clock*) may be changed while it runs.
    ``GET /_fake/charges`` returns the charges to other processes.

    A request passes through these checks in order: User-Agent, route, rate, fault (scripted, else
    random), key, account. A fault that keeps a request from the service therefore hides an invalid
    key, and one with ``accepted=True`` accepts only what would have been accepted anyway.

    Args:
        api_key: The only valid key, invented; None accepts any request.
        port: The port; 0 chooses a free one, and keeps it over a restart.
        separate_results: Whether to serve result files from a second port, since the live service
            uses other hosts for them; False serves them from `url`.
        results_ssl: A context to serve result files over https, from their separate port.
        envelope: The form of success: ``"ok"`` (``ok: true``, ``statusCode``, ``message``,
            ``data``, as seen live), ``"plain"`` (without ``ok``), ``"code"`` (the seedance2 pages:
            ``code`` is the string "200") or ``"list"`` (the gpt_image_2_official page: submit
            returns a list without out_task_id; the rest is plain).
        rejection_form: The HTTP status of a rejection: ``"live"`` as observed (400 and 433 in a
            200, 401 and 429 as themselves), ``"http"`` always its own, ``"envelope"`` always
            200.
        used_id: The result of a submit with a used ID, which is undocumented: ``"reject"`` rejects
            it with a 400, ``"return"`` returns the first task without a charge, ``"charge"``
            accepts and charges another task, which query returns from then on.
        check_models: Whether to reject models and parameters that are not as documented, as
            `models` does.
        credits: The initial balance.
        price: Credits per task: one number, a mapping from the model (1.0 where it is missing) or
            a function of model and params. Invented: the live prices contradict each other.
        estimates: Whether submit returns ``estimated_credits``, which many models' pages omit;
            ``"zero"`` returns 0, as for models that are charged afterwards.
        query_ids: Whether query returns ``out_task_id``, which may be missing.
        free_quotas: The ``free_quotas`` of balance.
        durations: Seconds of *clock* from acceptance to the end of a task: one number or a mapping
            from the model (0.0 where it is missing).
        spread: Maximum deviation from that, as a share of it; derived from *seed* and the task's
            ID.
        outputs: Results per task.
        visible_after: Seconds of *clock* after acceptance in which query does not find the task.
            Whether the live service lags is unknown.
        visible_after_polls: The number of queries for a task that do not find it.
        max_rate: Maximum API requests per second of *clock*, beyond which they are rejected with
            429; None for no limit. The live limits are undocumented.
        burst: Maximum requests at once; None for one second's worth.
        retry_after: The ``Retry-After`` of these 429s: ``"seconds"``, ``"date"`` or None.
        callbacks: When the ``callback_url`` of a submit is called: ``"once"`` at the end of the
            task, ``"early"``, before the response to the submit, ``"late"``, ``"twice"`` or
            ``"never"``. Several words take turns. The payload is invented: that of a
            query, always with the ID.
        callback_delay: Seconds of *clock* after the end for ``"late"``.
        faults: Random faults, each with its probability per request.
        seed: The seed of *faults* and *spread*. *faults* are drawn in the order in which requests
            arrive.
        clock: Returns the time in seconds; pass your own to skip hours.
        record: Whether to keep `requests` and the params of tasks; counters and `charges` are
            always kept.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: An option is out of range.
    """

    requests: list[RecordedRequest] = attrs.field(init=False)
    """Every request in order of arrival, result files included."""
    leaks: list[RecordedRequest] = attrs.field(init=False)
    """Requests for result files, or to their host, that carried an Authorization header."""
    charges: list[Charge] = attrs.field(init=False)
    """One per accepted task, in order."""
    callbacks_sent: list[Callback] = attrs.field(init=False)
    """Every callback that was attempted, in order."""
    counts: Counter[str] = attrs.field(init=False)
    """Requests per path; those for result files are counted under ``/upload``."""
    rejections: Counter[int] = attrs.field(init=False)
    """Requests that the service itself rejected, per code, without faults."""
    _account: Account = attrs.field(init=False)
    _api: Api = attrs.field(init=False)
    _plan: FaultPlan = attrs.field(init=False)
    _callbacks: Callbacks = attrs.field(init=False)
    _site: Site = attrs.field(init=False)
    _results: Site = attrs.field(init=False)
    _results_port: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._account = Account(self, self._credits)
        self._plan = FaultPlan(self.faults, self.seed)
        self._callbacks = Callbacks(self, self._account.describe)
        self._api = Api(self, self._account, self._plan, self._callbacks)
        self._site = Site(self._api.handle_api)
        self._results = Site(self._api.handle_result)
        self.charges = self._account.charges
        self.callbacks_sent = self._callbacks.attempted
        self.requests = self._api.requests
        self.leaks = self._api.leaks
        self.counts = self._api.counts
        self.rejections = self._api.rejections

    def __repr__(self) -> str:
        return (
            f"FakeService(url={self.url!r}, running={self._site.running}, "
            f"charges={len(self.charges)})"
        )

    def client(self, **options: Any) -> "AsyncClient":
        """Create a client of this service that polls and retries without noticeable delays.

        Args:
            **options: Options of `AsyncClient`, overriding the defaults chosen here.
        """
        # Upward imports, skipped without a client.
        from aireiter_async._client import AsyncClient  # noqa: PLC0415
        from aireiter_async._poll import PollPolicy  # noqa: PLC0415
        from aireiter_async._retry import RetryPolicy  # noqa: PLC0415

        chosen: dict[str, Any] = {
            "api_key": self.api_key or "sk-fake",
            "base_url": self.url,
            "polling": PollPolicy(first=0, step=0.01, cap=0.05, grace=0.1),
            "retry": RetryPolicy(base=0.005, cap=0.02, settle=0.05),
        }
        return AsyncClient(**{**chosen, **options})

    @property
    def url(self) -> str:
        """The base URL for clients; empty until started."""
        return self._site.url

    @property
    def results_url(self) -> str:
        """The URL of the host of the result files, without a path."""
        return self._account.results_url

    @property
    def credits(self) -> float:
        """Remaining credits, including refunds due by now; may be assigned to."""
        return self._account.credits

    @credits.setter  # noqa: A003 - the property above
    def credits(self, value: float) -> None:
        self._account.set_balance(value)

    @property
    def tasks(self) -> Mapping[str, FakeTask]:
        """The tasks by their IDs; the latest where an ID was used twice."""
        return MappingProxyType(self._account.tasks)

    @property
    def connections(self) -> int:
        """Sockets open to the API now."""
        return len(self._site.connections)

    @property
    def peak_connections(self) -> int:
        """The maximum number of concurrently open sockets to the API."""
        return self._site.peak_connections

    @property
    def in_flight(self) -> int:
        """API requests in progress, including hanging ones."""
        return self._api.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The maximum number of concurrent API requests."""
        return self._api.peak_in_flight

    def posts(self, out_task_id: str) -> int:
        """Return the number of submits with *out_task_id* that arrived, whatever their outcome."""
        return self._api.posts[out_task_id]

    def script(self, endpoint: Endpoint, *faults: Fault) -> None:
        """Apply *faults* to the next requests to *endpoint*, one each, in order.

        Args:
            endpoint: ``"submit"``, ``"query"``, ``"balance"`` or ``"result"``.
            faults: Added to what is already scripted there.

        Raises:
            ValueError: A fault cannot occur on that endpoint, or there is no such endpoint.
            TypeError: One of *faults* is not a fault.
        """
        self._plan.script(endpoint, faults)

    def scripted(self, endpoint: Endpoint) -> int:
        """Return the number of scripted faults that remain on *endpoint*.

        Raises:
            ValueError: There is no such endpoint.
        """
        return self._plan.remaining(endpoint)

    async def start(self) -> None:
        """Start listening; after `close`, on the same ports and with the same tasks.

        Raises:
            OSError: The port is taken.
            RuntimeError: It is already running.
        """
        if self._site.running:
            raise RuntimeError(f"the service is already running at {self.url}")
        try:
            self.port: int = await self._site.start(self.port)
            self._account.api_url = self._account.results_url = self.url
            if self.separate_results or self.results_ssl:
                self._results_port = await self._results.start(self._results_port, self.results_ssl)
                self._account.results_url = self._results.url
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening and abort every connection, whatever it is waiting for."""
        await self._callbacks.close()
        await self._site.stop()
        await self._results.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
