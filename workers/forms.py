"""FormData, and the two encodings it travels in.

``multipart/form-data`` is RFC 7578 over RFC 2046; ``application/x-www-form-urlencoded`` is §5 of
the WHATWG URL standard. Parsing is bounded: at most :data:`MAX_FIELDS` fields, each with a head
of at most :data:`MAX_PART_HEAD_BYTES`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from email.message import Message
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from workers.blob import Blob, File
from workers.search_params import URLSearchParams

FormDataValue: TypeAlias = str | Blob

MAX_FIELDS: Final = 10_000
MAX_PART_HEAD_BYTES: Final = 16_384

_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"([^"]*)"|([^\s;]*))')
"""A parameter of Content-Disposition. Browsers do not escape a backslash, so it escapes nothing."""


class FormData(MutableMapping[str, FormDataValue]):
    """The fields of a form, in order; a name may occur several times.

    Args:
        form_data: a mapping, pairs, another ``FormData``, or ``None``.

    Raises:
        TypeError: a value is neither ``str`` nor ``Blob``.

    Source: https://developer.mozilla.org/docs/Web/API/FormData
    """

    __slots__ = ("_pairs",)

    def __init__(
        self,
        form_data: Mapping[str, FormDataValue] | Iterable[tuple[str, FormDataValue]] | None = None,
    ) -> None:
        self._pairs: list[tuple[str, FormDataValue]] = []
        if form_data is None:
            return
        for name, value in _fields(form_data):
            self.append(name, value)

    @classmethod
    def new(cls) -> FormData:
        """Make one, as JavaScript's ``new`` is spelt in Pyodide."""
        return cls()

    def append(self, key: str, value: FormDataValue, filename: str | None = None) -> None:
        """Add a field; a ``Blob`` is added as a ``File`` called ``filename``, or ``"blob"``."""
        self._pairs.append((key, _checked(value, filename)))

    def set(self, key: str, value: FormDataValue, filename: str | None = None) -> None:
        """Replace all fields called ``key`` with one, at the place of the first."""
        field = (key, _checked(value, filename))
        position = next((i for i, (name, _) in enumerate(self._pairs) if name == key), None)
        self.delete(key)
        self._pairs.insert(len(self._pairs) if position is None else position, field)

    def delete(self, key: str) -> None:
        """Remove all fields called ``key``; no effect if there is none."""
        self._pairs = [pair for pair in self._pairs if pair[0] != key]

    def has(self, key: str) -> bool:
        """Whether there is a field called ``key``."""
        return key in self

    def get_all(self, key: str) -> list[FormDataValue]:
        """Return the values of all fields called ``key``, in order."""
        return [value for name, value in self._pairs if name == key]

    getAll = get_all

    def keys(self) -> list[str]:  # type: ignore[override]
        """Return the names, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[FormDataValue]:  # type: ignore[override]
        """Return the values, in order."""
        return [value for _, value in self._pairs]

    def items(self) -> list[tuple[str, FormDataValue]]:  # type: ignore[override]
        """Return the fields, in order."""
        return list(self._pairs)

    entries = items

    @property
    def js_object(self) -> FormData:
        """Itself: here there is no JavaScript object behind it."""
        return self

    def __getitem__(self, key: str) -> FormDataValue:
        for name, value in self._pairs:
            if name == key:
                return value
        raise KeyError(key)

    def __setitem__(self, key: str, value: FormDataValue) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"FormData({self._pairs!r})"


def encode_form(form: FormData) -> tuple[bytes, str]:
    """Return ``form`` as ``multipart/form-data``, and the Content-Type with its boundary."""
    boundary = "----limpet-" + secrets.token_hex(16)
    parts: list[bytes] = []
    for name, value in form.items():
        disposition = f'form-data; name="{_escaped(name)}"'
        kind = ""
        if isinstance(value, str):
            content = _crlf(value).encode("utf-8", "replace")
        else:
            content = bytes(value)
            filename = value.name if isinstance(value, File) else "blob"
            disposition += f'; filename="{_escaped(filename)}"'
            kind = f"\r\nContent-Type: {value.content_type or 'application/octet-stream'}"
        head = f"--{boundary}\r\nContent-Disposition: {disposition}{kind}\r\n\r\n"
        parts += (head.encode("utf-8", "replace"), content, b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def parse_form(body: bytes, content_type: str | None) -> FormData:
    """Return the form in ``body``.

    Raises:
        TypeError: the Content-Type is that of no form, or the body is malformed or exceeds a bound.
    """
    head: Message[str, str] = Message()
    head["Content-Type"] = content_type or ""
    kind = head.get_content_type() if content_type else ""
    if kind == "application/x-www-form-urlencoded":
        return _parse_urlencoded(body)
    if kind == "multipart/form-data":
        boundary = head.get_boundary()
        if not boundary:
            raise TypeError("FormData: the Content-Type names no boundary.")
        return _parse_multipart(body, boundary.encode("utf-8", "replace"))
    raise TypeError(
        "Unrecognized Content-Type header value. FormData can only parse the following MIME types: "
        "multipart/form-data, application/x-www-form-urlencoded."
    )


def encode_params(params: URLSearchParams) -> tuple[bytes, str]:
    """Return ``params`` as a form body, and its Content-Type."""
    return params.toString().encode(), "application/x-www-form-urlencoded;charset=UTF-8"


def _parse_urlencoded(body: bytes) -> FormData:
    form = FormData()
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise TypeError(f"FormData: more than {MAX_FIELDS} fields.") from None
    form._pairs = [(name, value) for name, value in pairs]
    return form


def _parse_multipart(body: bytes, boundary: bytes) -> FormData:
    delimiter = b"\r\n--" + boundary
    form = FormData()
    # The first delimiter may open the body; what stands before it is a preamble to be ignored.
    start = (b"\r\n" + body[: len(delimiter)]).find(delimiter)
    position = len(delimiter) - 2 if start == 0 else _after(body, delimiter, 0)
    while not body.startswith(b"--", position):
        line_end = body.find(b"\r\n", position)
        if line_end < 0 or body[position:line_end].strip(b" \t"):
            raise TypeError("FormData: malformed multipart body after a boundary.")
        if len(form._pairs) >= MAX_FIELDS:
            raise TypeError(f"FormData: more than {MAX_FIELDS} fields.")
        head_start = line_end + 2
        head_end = body.find(b"\r\n\r\n", line_end, head_start + MAX_PART_HEAD_BYTES)
        if head_end < 0:
            raise TypeError("FormData: a part's header fields do not end.")
        position = _after(body, delimiter, head_end + 2)
        content = body[head_end + 4 : position - len(delimiter)]
        form._pairs.append(_part(body[head_start:head_end], content))
    return form


def _after(body: bytes, delimiter: bytes, start: int) -> int:
    found = body.find(delimiter, start)
    if found < 0:
        raise TypeError("FormData: the multipart body ends without its closing boundary.")
    return found + len(delimiter)


def _part(head: bytes, content: bytes) -> tuple[str, FormDataValue]:
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        field, colon, value = line.partition(":")
        if colon:
            fields[field.strip().lower()] = value.strip()
    disposition, _, rest = fields.get("content-disposition", "").partition(";")
    parameters = {
        match[1].lower(): _unescaped(match[3] if match[2] is None else match[2])
        for match in _PARAMETER.finditer(";" + rest)
    }
    name = parameters.get("name")
    if disposition.strip().lower() != "form-data" or name is None:
        raise TypeError("FormData: a part has no name.")
    filename = parameters.get("filename")
    if filename is None:
        return name, content.decode("utf-8", "replace")
    return name, File(content, filename, fields.get("content-type", "text/plain"))


def _fields(form_data: object) -> Iterable[tuple[str, FormDataValue]]:
    if isinstance(form_data, Mapping):
        return form_data.items()
    if isinstance(form_data, str | bytes) or not isinstance(form_data, Iterable):
        raise TypeError("Expected form_data to be a dict or an instance of FormData")
    return form_data


def _checked(value: object, filename: str | None) -> FormDataValue:
    if isinstance(value, str):
        return value
    if isinstance(value, File) and filename is None:
        return value
    if isinstance(value, Blob):
        return File(value, filename if filename is not None else "blob")
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        raise TypeError("Expected single item in arguments to FormData.__setitem__")
    raise TypeError(f"a form field must be str or Blob, not {type(value).__name__}")


def _crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def _escaped(name: str) -> str:
    # WHATWG HTML §4.10.21.8: only these three are escaped.
    return _crlf(name).replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _unescaped(name: str) -> str:
    return name.replace("%0D", "\r").replace("%0A", "\n").replace("%22", '"')
