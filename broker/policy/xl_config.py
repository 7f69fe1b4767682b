"""A domain's xl configuration: its name, its uuid, and the label an older toolstack gave it.

    name = "web1"
    uuid = "56b8d9d0-f417-45de-ab20-17715a9d5aab"
    acm_label = ['labelname=dom_Fun,policyname=corp']       # the labels of xend's first years
    access_control = ['policy=corp,label=dom_Fun']          # and of later ones
    ssidref = 196611                                        # the oldest: a number alone

The file is read, never executed: xend's configurations were Python sources, and one that is more
than assignments of strings, numbers and lists of such is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.policy.acm.label_text import parse_label
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES: Final = 1 << 20
_MAX_SSIDREF: Final = 0xFFFFFFFF
_TOKEN: Final = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*|\\\n)|(?P<end>[\n;])|(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9a-fA-F]+|-?[0-9]+)|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>\+=|[=\[\],])""",
    re.VERBOSE,
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEYS: Final = {
    "acm_label": ("labelname", "policyname"),
    "access_control": ("label", "policy"),
}
"""The settings that hold a label, and what its parts are called there: label, policy."""

_OURS: Final = frozenset({"name", "uuid", "ssidref", *_KEYS})


class ConfiguredLabel(msgspec.Struct, frozen=True):
    """A label with its policy's name; or, with neither, a reference that stands for one."""

    label: str | None
    policy: str | None
    ssidref: int | None
    where: tuple[int, int]


class XlConfig(msgspec.Struct, frozen=True):
    """What a configuration says of a domain's identity and label."""

    name: str | None
    uuid: str | None
    label: ConfiguredLabel


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    line: int
    column: int


class _Value(msgspec.Struct, frozen=True):
    token: _Token
    items: tuple[_Token, ...] | None


def read_xl_config(data: bytes, source: str) -> XlConfig:
    """Read a configuration; a label's text wins over a number, which has to be of the same.

    Raises:
        ProblemsError: it is no configuration, or names no domain, or no label, or two.
    """
    return _Reader(source).read(data)


class _Reader:
    """Reads one file."""

    def __init__(self, source: str) -> None:
        self._source = source

    def read(self, data: bytes) -> XlConfig:
        values = self._values(list(self._tokens(data)))
        name = self._text(values, "name")
        uuid = self._text(values, "uuid")
        if uuid is not None:
            uuid = uuid.lower()
            if not _UUID.fullmatch(uuid):
                raise self._wrong(values["uuid"].token, f"'{escape(uuid, 60)}' is no uuid")
        if not name and uuid is None:
            raise self._error(1, 1, "names no domain: neither name nor uuid is set")
        found = [self._label(key, values[key]) for key in _KEYS if key in values]
        if len({(it.label, it.policy) for it in found}) > 1:
            line, column = found[1].where
            raise self._error(line, column, "acm_label and access_control say two things")
        ssidref = self._ssidref(values)
        if found:
            return XlConfig(name, uuid, msgspec.structs.replace(found[0], ssidref=ssidref))
        if ssidref is None:
            said = "has no label: no acm_label, access_control or ssidref is set"
            raise self._error(1, 1, said)
        token = values["ssidref"].token
        label = ConfiguredLabel(None, None, ssidref, (token.line, token.column))
        return XlConfig(name, uuid, label)

    def _tokens(self, data: bytes) -> Iterator[_Token]:
        if len(data) > _MAX_BYTES:
            raise self._error(1, 1, f"longer than {_MAX_BYTES} bytes")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self._error(line, 1, "not UTF-8") from None
        at, line, start = 0, 1, 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                shown = escape(text[at : at + 20].partition("\n")[0], 20)
                said = f"not NAME = value, of strings, numbers and lists, but: {shown}"
                raise self._error(line, at - start + 1, said)
            kind = match.lastgroup or ""
            if kind != "skip":
                yield _Token(kind, match[0], line, at - start + 1)
            at = match.end()
            if match[0].endswith("\n"):
                line, start = line + 1, at

    def _values(self, tokens: list[_Token]) -> dict[str, _Value]:
        """Each setting, which is set once."""
        values: dict[str, _Value] = {}
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.kind == "end":
                at += 1
                continue
            if token.kind != "name" or not self._is(tokens, at + 1, "=", "+="):
                raise self._wrong(token, f"expected NAME = value, not {escape(token.text, 40)}")
            appends = tokens[at + 1].text == "+="
            value, at = self._value(tokens, at + 2, token)
            # Of what matters here there is one; the rest is xl's.
            if token.text in _OURS and (token.text in values or appends):
                raise self._wrong(token, f"{escape(token.text, 40)} is set twice")
            if not appends:
                values[token.text] = value
            if at < len(tokens) and tokens[at].kind != "end":
                raise self._wrong(tokens[at], f"unexpected {escape(tokens[at].text, 40)}")
        return values

    def _value(self, tokens: list[_Token], at: int, key: _Token) -> tuple[_Value, int]:
        """The value that begins at `at`, and where it ends."""
        if at < len(tokens) and tokens[at].kind in ("string", "number"):
            return _Value(tokens[at], None), at + 1
        if not self._is(tokens, at, "["):
            said = f"{escape(key.text, 40)} is no string, number or list of such"
            raise self._wrong(tokens[at] if at < len(tokens) else key, said)
        items: list[_Token] = []
        opening, at, parted = tokens[at], at + 1, True
        while at < len(tokens):
            token, at = tokens[at], at + 1
            if token.text == "]" and token.kind == "mark":
                return _Value(opening, tuple(items)), at
            if token.kind == "end" and token.text == "\n":
                continue
            if token.text == "," and token.kind == "mark" and not parted:
                parted = True
            elif token.kind in ("string", "number") and parted:
                items.append(token)
                parted = False
            else:
                raise self._wrong(token, f"unexpected {escape(token.text, 40)} in a list")
        raise self._wrong(opening, "the list has no end")

    @staticmethod
    def _is(tokens: list[_Token], at: int, *marks: str) -> bool:
        return at < len(tokens) and tokens[at].kind == "mark" and tokens[at].text in marks

    def _text(self, values: dict[str, _Value], key: str) -> str | None:
        value = values.get(key)
        if value is None:
            return None
        if value.items is not None or value.token.kind != "string":
            raise self._wrong(value.token, f"{key} is no string")
        return self._string(value.token)

    def _string(self, token: _Token) -> str:
        body = token.text[1:-1]
        if "\\" in body:
            raise self._wrong(token, "backslashes are not read here; write the text as it is")
        return body

    def _label(self, key: str, value: _Value) -> ConfiguredLabel:
        items = (value.token,) if value.items is None else value.items
        if len(items) != 1 or items[0].kind != "string":
            raise self._wrong(value.token, f"{key} holds one label, as a string")
        (token,) = items
        where = (token.line, token.column)
        text = self._string(token)
        if ":" in text:
            try:
                parsed = parse_label(text)
            except ValueError as error:
                raise self._wrong(token, str(error)) from None
            if parsed.invalid:
                raise self._wrong(token, f"label {escape(parsed.label, 60)} was made void (INV_)")
            return ConfiguredLabel(parsed.label, parsed.policy, None, where)
        names = _KEYS[key]
        parts: dict[str, str] = {}
        for part in text.split(","):
            name, equals, word = (it.strip() for it in part.partition("="))
            if name not in names or not equals or not word or name in parts:
                said = f"{key} is '{names[0]}=LABEL,{names[1]}=POLICY', not '{escape(text, 80)}'"
                raise self._wrong(token, said)
            parts[name] = word
        if len(parts) != len(names):
            missing = next(name for name in names if name not in parts)
            raise self._wrong(token, f"{key} does not say {missing}=")
        return ConfiguredLabel(parts[names[0]], parts[names[1]], None, where)

    def _ssidref(self, values: dict[str, _Value]) -> int | None:
        value = values.get("ssidref")
        if value is None:
            return None
        if value.items is not None or value.token.kind != "number":
            raise self._wrong(value.token, "ssidref is no number")
        digits = value.token.text
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        if not 0 < number <= _MAX_SSIDREF:
            raise self._wrong(value.token, f"ssidref {number} is no label's (1 to 4294967295)")
        return number

    def _wrong(self, token: _Token, message: str) -> ProblemsError:
        return self._error(token.line, token.column, message)

    def _error(self, line: int, column: int, message: str) -> ProblemsError:
        return ProblemsError([Problem(self._source, line, column, message)])
