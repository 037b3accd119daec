"""Namespaces, ids and stubs: how an object is addressed."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from common.ids import IdFactory, ObjectId
from workers.exceptions import JsException, RangeError
from workers.request import Request
from workers.rpc import RpcPromise, StubMethod

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from workers.host import NamespaceHost, StubChannel
    from workers.options import FetchKwargs
    from workers.response import Response
    from workers.url import URL

_MISSING: Final = object()
_WRONG_TYPE: Final = "Failed to execute '{}' on '{}': parameter 1 is not of type 'DurableObjectId'."
_NO_JURISDICTIONS: Final = "Jurisdiction restrictions are not implemented in Limpet."


class DurableObjectId:
    """The address of an object. Immutable; equal to every other id of the same object.

    Source: https://developers.cloudflare.com/durable-objects/api/id/
    """

    __slots__ = ("_factory", "_id")

    def __init__(self, object_id: ObjectId, factory: IdFactory | None = None) -> None:
        self._id = object_id
        self._factory = factory

    @property
    def raw(self) -> ObjectId:
        """The id as Limpet's own code uses it."""
        return self._id

    @property
    def name(self) -> str | None:
        """The name it was made from; ``None`` for random ids and those read from a string."""
        return self._id.name

    @property
    def jurisdiction(self) -> None:
        """Always ``None``: an own machine is its own jurisdiction."""
        return

    def toString(self) -> str:
        """64 lower-case hex digits."""
        return str(self._id)

    def equals(self, other: DurableObjectId) -> bool:
        """Whether ``other`` is an id of the same object.

        Raises:
            TypeError: ``other`` is no id.
        """
        if not isinstance(other, DurableObjectId):
            raise TypeError(_WRONG_TYPE.format("equals", "DurableObjectId"))
        return self._id == other._id

    def toJSON(self) -> dict[str, str]:
        """Return the name, if there is one."""
        return {} if self._id.name is None else {"name": self._id.name}

    to_string = toString
    to_json = toJSON

    def __str__(self) -> str:
        return str(self._id)

    def __eq__(self, other: object) -> bool:
        return self._id == other._id if isinstance(other, DurableObjectId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        name = "" if self._id.name is None else f", name={self._id.name!r}"
        return f"DurableObjectId({self._id}{name})"


class DurableObjectStub:
    """A caller's end of one object. Every method of the object is a method of the stub.

    ``await stub.method(*args, **kwargs)`` calls it; the call leaves at once, awaited or not, and
    calls on one stub arrive in the order they were made, fetches among them. An object that is
    reset breaks its stubs: every later call fails with the same error, and a new stub works. Making
    a stub does nothing yet.

    Source: https://developers.cloudflare.com/durable-objects/api/stub/
    """

    __slots__ = ("__weakref__", "_channel", "_id")

    def __init__(self, channel: StubChannel, object_id: DurableObjectId) -> None:
        self._channel = channel
        self._id = object_id

    @property
    def id(self) -> DurableObjectId:
        """The object's id."""
        return self._id

    @property
    def name(self) -> str | None:
        """The name its id was made from, or ``None``."""
        return self._id.name

    def fetch(
        self, resource: Request | URL | str, **options: Unpack[FetchKwargs]
    ) -> Coroutine[Any, Any, Response]:
        """Send a request to the object's ``fetch``; await the response.

        Args:
            resource: an absolute URL, whose scheme and host mean nothing here, or a request.
            options: as of :class:`~workers.request.Request`.

        Raises:
            TypeError: an invalid URL or option.
            Exception: what the object's ``fetch`` raises, with the attribute ``remote``.

        Source: https://developers.cloudflare.com/durable-objects/best-practices/create-durable-object-stubs-and-send-requests/
        """
        if type(resource) is not Request or options:
            resource = Request(resource, **options)
        return RpcPromise(self._channel.fetch(resource), "fetch")

    def connect(self, *_args: object, **_options: object) -> NoReturn:
        """Raw sockets to objects do not exist here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("stub.connect() is not supported: use stub.fetch() or a method.")

    def toString(self) -> str:
        """Return the text JavaScript gives for a stub; never a call."""
        return "[object DurableObject]"

    def valueOf(self) -> DurableObjectStub:
        """Return the stub; never a call."""
        return self

    def hasOwnProperty(self, name: str) -> bool:
        """Whether the stub itself has ``name``; never a call."""
        return name in ("id", "name")

    def constructor(self, *_args: object) -> NoReturn:
        """Not a method of the object.

        Raises:
            TypeError: always.
        """
        raise TypeError("Illegal constructor")

    def __getattr__(self, name: str) -> StubMethod:
        if name == "then" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"a stub has no {name!r}")
        return StubMethod(self._channel, name)

    def __repr__(self) -> str:
        return f"<DurableObjectStub of {self._id.name or self._id}>"


class DurableObjectNamespace:
    """All objects of one class: a binding.

    Source: https://developers.cloudflare.com/durable-objects/api/namespace/
    """

    __slots__ = ("__weakref__", "_host", "_ids")

    def __init__(self, host: NamespaceHost) -> None:
        self._host = host
        self._ids = host.ids

    def idFromName(self, name: object = _MISSING) -> DurableObjectId:
        """Return the id that belongs to ``name``: always the same one.

        Args:
            name: a string of any length and script; anything else is made one, as in JavaScript.

        Raises:
            TypeError: called without an argument.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#idfromname
        """
        ids = self._ids
        object_id = ids.from_name() if name is _MISSING else ids.from_name(name)
        return DurableObjectId(object_id, ids)

    def idFromString(self, id: object) -> DurableObjectId:
        """Return the id that ``str(id)`` gave; it has no name.

        Raises:
            TypeError: it is not 64 hex digits, or an id of another namespace.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#idfromstring
        """
        return DurableObjectId(self._ids.from_string(str(id)), self._ids)

    def newUniqueId(
        self, options: Mapping[str, Any] | None = None, *, jurisdiction: str | None = None
    ) -> DurableObjectId:
        """Return a new random id.

        Raises:
            JsException: a jurisdiction is asked for.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#newuniqueid
        """
        wanted = jurisdiction if jurisdiction is not None else _option(options, "jurisdiction")
        self.jurisdiction(wanted)
        return DurableObjectId(self._ids.unique(), self._ids)

    def get(
        self,
        id: DurableObjectId,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> DurableObjectStub:
        """Return a stub of the object with that id; nothing is sent or constructed yet.

        Args:
            id: an id of this namespace.
            options: ``locationHint`` has no effect; ``routingMode`` may be ``"primary-only"``.
            kwargs: the same as keywords.

        Raises:
            TypeError: ``id`` is no id, or one of another namespace.
            RangeError: another routing mode.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#get
        """
        if type(id) is not DurableObjectId:
            raise TypeError(_WRONG_TYPE.format("get", "DurableObjectNamespace"))
        if options is not None or kwargs:
            _check_options(options, kwargs)
        if id._factory is not self._ids:
            self._ids.check(id._id)
        return DurableObjectStub(self._host.channel(id._id), id)

    def getByName(
        self, name: object = _MISSING, options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> DurableObjectStub:
        """Return a stub of the object called ``name``: ``get(idFromName(name), options)``.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#getbyname
        """
        return self.get(self.idFromName(name), options, **kwargs)

    def jurisdiction(self, jurisdiction: str | None = None) -> DurableObjectNamespace:
        """Return the namespace limited to a jurisdiction: only ``None`` exists here.

        Raises:
            JsException: a jurisdiction is asked for.

        Source: https://developers.cloudflare.com/durable-objects/api/namespace/#jurisdiction
        """
        if jurisdiction is not None:
            raise JsException(_NO_JURISDICTIONS, "Error")
        return self

    id_from_name = idFromName
    id_from_string = idFromString
    new_unique_id = newUniqueId
    get_by_name = getByName

    def __repr__(self) -> str:
        return "<DurableObjectNamespace>"


def _option(options: object, name: str) -> Any:
    if options is None:
        return None
    if isinstance(options, Mapping):
        return options.get(name)
    return getattr(options, name, None)


def _check_options(options: object, kwargs: Mapping[str, Any]) -> None:
    mode = kwargs.get("routingMode", kwargs.get("routing_mode", _option(options, "routingMode")))
    if mode is not None and mode != "primary-only":
        raise RangeError(f"unknown routingMode: {mode}")
