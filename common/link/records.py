"""The vocabulary of the link: every record that crosses it, and its shape.

A record is a plain list whose first item is its kind. Lists, not objects: a busy link carries
hundreds of thousands a second, and msgpack reads and writes them without any code of ours.

======================  ============  ==========================================================
record                  sent by       shape after the kind
======================  ============  ==========================================================
``FRAMES``              both          ``targets, payloads``: two columns of equal length. A
                                      target is a connection id, or a list of them (one payload,
                                      many receivers). A payload is ``str`` (text) or ``bytes``.
``BLOB_FRAME``          both          ``target, length, is_text``: one large message; its bytes
                                      travel behind the batch, outside msgpack
``HELLO``               both          ``{...}``, see :class:`common.link.session.Hello`
``GOODBYE``             both          ``text``: why the sender closes the link
----------------------  ------------  ----------------------------------------------------------
``ATTACH``              gateway       ``socket_id, connection, partition``: this client's
                                      connection is now the other end of that socket
``CLOSE``               shard         ``connection, code | None, reason``: send a Close frame
``CLOSED``              gateway       ``connection, code, reason, was_clean``: the client sent
                                      Close, or is gone. Exactly one for each attached connection
``PAUSE``, ``RESUME``   shard         ``[connection, …]``: stop, start reading these clients
``UNSETTLED``           shard         ``[connection, …]``: frames of these, delivered in the
                                      batch acknowledged by this one, are still being handled
``SETTLED``             shard         ``[connection, …]``: no longer. Behind what the handlers
                                      have sent; one for each ``UNSETTLED`` of a connection
----------------------  ------------  ----------------------------------------------------------
``HOLD``                shard         ``connection, target, tags, attachment | None, order``: the
                                      object of this attached connection may sleep or move while
                                      the gateway keeps it. Target: ``[unique_key, id, name]``
``ATTACHMENT``          shard         ``connection, attachment | None``: the newest one
``AUTO_RESPONSE``       both          ``target, request | None, response | None``: answer that
                                      text on the object's held connections; or no longer
``AUTO_ANSWERED``       gateway       ``[connection, …], [time_ms, …]``: answered so, last then
``ADOPT``               gateway       ``connection, target, tags, attachment | None, order,
                                      answered_ms, close_sent``: a connection that was held for
                                      an object of the shard's predecessor
``ADOPTED``             gateway       ``[partition, …]``: there are no more of them for the objects
                                      of these. The first thing a gateway says, about those that
                                      ``HELLO`` named; and after each ``TAKEN``
``SERVING``             shard         ``[partition, …]``: events for the objects of these are
                                      welcome from now on. With the first one, requests are, too
``DRAIN``               shard         : send no more events and requests; what belongs to those
                                      under way may still be sent
``DRAINED``             all           : none will come
``HALT``                shard         ``[partition, …]``: send no more events for the objects of
                                      these; what belongs to those under way may still be sent
``HALTED``              all           ``[partition, …]``: none will come
``GIVEN``               shard         ``[partition, …], [connection, …]``: these are not at home
                                      here any more; nobody has handled what these connections,
                                      held by objects of them, have said last
``TAKEN``               shard         ``{partition: generation}``: these are at home here now
----------------------  ------------  ----------------------------------------------------------
``REQUEST``             the dialler   ``request_id, target | None, head``. Target ``None`` is the
                                      app's entry point, else ``[unique_key, id, name | None,
                                      generation, stub]`` (stub: the number of the caller's
                                      stub). Head: ``[method, url, headers, upgrade,
                                      body_mode, body, client]``
``RESPONSE``            answerer      ``request_id, status, reason, headers, body_mode, body,
                                      socket | None``; socket: ``[shard, socket_id,
                                      partition]``; partition -1: it is no object's
``FAILED``              answerer      ``request_id, {...}``: an error instead of an answer
``CANCEL``              the dialler   ``request_id``: whoever asked no longer waits
``BODY``                both          ``request_id, bytes``: a piece of a streamed body. The
                                      dialler sends request bodies, the answerer response bodies
``BODY_END``            both          ``request_id``
``BODY_ABORT``          both          ``request_id, text``: the body ends here, incomplete
``BODY_CREDIT``         both          ``request_id, bytes``: that many were consumed
``CALL``                the dialler   ``request_id, target, method, arguments``. Serialised values
                                      are ``bytes``, or ``[bytes]`` if references are in them
``RESULT``              answerer      ``request_id, value`` (serialised)
``INVOKE``              both          ``request_id, handle, method | None, arguments``: call a
                                      function or target that was passed over this link
``RELEASE``             both          ``handle, count``: the holder dropped it. A negative handle is
                                      the number of a stub that broke: no more calls come on it
======================  ============  ==========================================================

Headers are a list of ``[name, value]``. ``body_mode`` is one of :data:`BODY_NONE`,
:data:`BODY_WHOLE`, :data:`BODY_STREAM`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Record: TypeAlias = list[Any]

FRAMES: Final = 0
BLOB_FRAME: Final = 1
HELLO: Final = 2
GOODBYE: Final = 3

ATTACH: Final = 10
CLOSE: Final = 11
CLOSED: Final = 12
PAUSE: Final = 14
RESUME: Final = 15
UNSETTLED: Final = 16
SETTLED: Final = 17

HOLD: Final = 40
ATTACHMENT: Final = 41
AUTO_RESPONSE: Final = 42
AUTO_ANSWERED: Final = 43
ADOPT: Final = 44
ADOPTED: Final = 45
SERVING: Final = 46
DRAIN: Final = 47
DRAINED: Final = 48
HALT: Final = 49
HALTED: Final = 50
GIVEN: Final = 51
TAKEN: Final = 52

REQUEST: Final = 20
RESPONSE: Final = 21
FAILED: Final = 22
CANCEL: Final = 23
BODY: Final = 24
BODY_END: Final = 25
BODY_ABORT: Final = 26
BODY_CREDIT: Final = 27

CALL: Final = 30
RESULT: Final = 31
INVOKE: Final = 32
RELEASE: Final = 33

BODY_NONE: Final = 0
BODY_WHOLE: Final = 1
BODY_STREAM: Final = 2

LENGTHS: Final[dict[int, int]] = {
    FRAMES: 3,
    BLOB_FRAME: 4,
    HELLO: 2,
    GOODBYE: 2,
    ATTACH: 4,
    CLOSE: 4,
    CLOSED: 5,
    PAUSE: 2,
    RESUME: 2,
    UNSETTLED: 2,
    SETTLED: 2,
    HOLD: 6,
    ATTACHMENT: 3,
    AUTO_RESPONSE: 4,
    AUTO_ANSWERED: 3,
    ADOPT: 8,
    ADOPTED: 2,
    SERVING: 2,
    DRAIN: 1,
    DRAINED: 1,
    HALT: 2,
    HALTED: 2,
    GIVEN: 3,
    TAKEN: 2,
    REQUEST: 4,
    RESPONSE: 8,
    FAILED: 3,
    CANCEL: 2,
    BODY: 3,
    BODY_END: 2,
    BODY_ABORT: 3,
    BODY_CREDIT: 3,
    CALL: 5,
    RESULT: 3,
    INVOKE: 5,
    RELEASE: 3,
}
"""Number of items of each kind of record, the kind included. A record of another length, or of a
kind that is not listed, is a protocol error."""
