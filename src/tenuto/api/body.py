"""What a body may look like, judged before anybody looks at its meaning.

msgspec decodes fast and strictly but lets the last of two equal keys win, and that is how a quantity gets forged. The
keys of a body are counted against its colons: equal counts prove that no key was lost. Only where a string hides a
colon behind an escape, or the counts differ, is the body parsed a second time by the slow, exact parser. Sources:
design 9, bar 4.1 to 4.4.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal, invalid

Body = TypeVar("Body")

BODY_MAX: Final = 1_048_576
DEPTH_MAX: Final = 16
METADATA_MAX: Final = 16_384
TEXT_MAX: Final = 200
KEY_MAX: Final = 255
TYPE_MAX: Final = 128
DENOMINATION_MAX: Final = 64

_AT: Final = re.compile(r" - at `(key in )?(?P<path>[^`]*)`$")
_NAME: Final = re.compile(r"`(?P<name>[^`]*)`")
_DECIMAL: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?")
_QUANTITY: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?) ?(Z|z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)


def decode(body: bytes, kind: type[Body]) -> tuple[Body, Any]:
    """A body as ``kind``, and as plain Python values. Raises Refusal with the path of the first field that is wrong."""
    tree = parse(body)
    try:
        return msgspec.json.decode(body, type=kind), tree
    except msgspec.ValidationError as error:
        _refuse_field(str(error))


def parse(body: bytes) -> Any:
    """A body as plain Python values: valid UTF-8, strict JSON, no key twice, not too deep, no NUL in a text."""
    try:
        tree = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise Refusal("invalid_encoding") from error
    except msgspec.ValidationError as error:
        raise Refusal("out_of_range", "A number in the body is larger than can be kept.") from error
    except msgspec.DecodeError as error:
        raise Refusal("invalid_json", f"The body is not JSON: {_without_library(error)}.") from error
    except RecursionError as error:
        raise Refusal("too_deep") from error
    escapes = b"\\" in body
    members, colons = _survey(tree, 0, has_escapes=escapes)
    if (escapes or members + colons != body.count(b":")) and _repeats_a_key(body):
        raise Refusal("duplicate_key")
    return tree


def _survey(value: Any, depth: int, *, has_escapes: bool) -> tuple[int, int]:  # noqa: C901 - flat, since it walks every body
    """How many object members a value holds, and how many colons its texts do; refuses depth and NUL on the way."""
    if isinstance(value, str):
        if has_escapes and "\0" in value:
            raise Refusal("invalid_string", "A text in the body holds the character NUL.")
        return 0, value.count(":")
    if isinstance(value, dict):
        depth += 1
        if depth > DEPTH_MAX:
            raise Refusal("too_deep")
        members, colons = len(value), 0
        for name, item in value.items():
            if ":" in name or has_escapes:
                colons += _survey(name, depth, has_escapes=has_escapes)[1]
            kind = type(item)
            if kind is str and not has_escapes:
                if ":" in item:
                    colons += item.count(":")
            elif kind is dict or kind is list or kind is str:
                below = _survey(item, depth, has_escapes=has_escapes)
                members += below[0]
                colons += below[1]
        return members, colons
    if isinstance(value, list):
        depth += 1
        if depth > DEPTH_MAX:
            raise Refusal("too_deep")
        members = colons = 0
        for item in value:
            below = _survey(item, depth, has_escapes=has_escapes)
            members += below[0]
            colons += below[1]
        return members, colons
    return 0, 0


def _repeats_a_key(body: bytes) -> bool:
    repeated = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        repeated = repeated or len(found) != len(pairs)
        return found

    json.loads(body, object_pairs_hook=look)
    return repeated


def _without_library(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ")


def _refuse_field(message: str) -> NoReturn:
    """A complaint of msgspec in our words: a code, the path, and what the field takes."""
    at = _AT.search(message)
    path = at["path"].removeprefix("$").removeprefix(".") if at else ""
    said = message[: at.start()] if at else message
    name = _NAME.search(said)
    if said.startswith("Object contains unknown field") and name:
        raise invalid(_below(path, name["name"]), "is not a field of this body.", "unknown_field") from None
    if said.startswith("Object missing required field") and name:
        raise invalid(_below(path, name["name"]), "is required.", "missing_field") from None
    if path:
        raise invalid(path, f"{said[0].lower()}{said[1:]}.".replace("`", "")) from None
    raise Refusal("invalid_field", f"The body: {said[0].lower()}{said[1:]}.".replace("`", "")) from None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def text(value: str, path: str, longest: int = TEXT_MAX, *, shortest: int = 1) -> str:
    """A text for people: its length in characters, nothing but spaces refused."""
    if len(value) > longest or len(value.strip()) < shortest:
        raise invalid(path, f"takes {shortest} to {longest} characters.")
    return value


def token(value: str, path: str, longest: int, *, spaces: bool = False) -> str:
    """A name for machines: printable ASCII, without spaces unless told so."""
    if 0 < len(value) <= longest and value.isascii() and value.isprintable() and (spaces or " " not in value):
        return value
    raise invalid(path, f"takes 1 to {longest} printable ASCII characters{'' if spaces else ' without spaces'}.")


def event_type(value: str, path: str) -> str:
    """An event type: up to 128 characters, no white space or control characters."""
    if 0 < len(value) <= TYPE_MAX and value.isprintable() and not any(map(str.isspace, value)):
        return value
    raise invalid(path, f"takes 1 to {TYPE_MAX} printable characters without spaces.")


def whole(value: int, path: str, *, least: int = 0, most: int = AMOUNT_MAX) -> int:
    """A whole number within bounds."""
    if least <= value <= most:
        return value
    if least > 0 >= value:
        raise invalid(path, "must be above zero.", "must_be_positive")
    raise invalid(path, f"takes a whole number from {least} to {most}.", "out_of_range")


def quantity(value: int | str, path: str) -> str:
    """A quantity in its one spelling: a whole number, or a decimal text of up to 9 places, above zero."""
    if isinstance(value, str):
        if not _QUANTITY.fullmatch(value):
            raise invalid(path, "takes a whole number, or a decimal string of up to 9 places.")
        value = value.lstrip("0") or "0"
        if "." in value:
            value = value.rstrip("0").rstrip(".")
        value = f"0{value}" if value.startswith(".") else value or "0"
        if value == "0":
            raise invalid(path, "must be above zero.", "must_be_positive")
        units, _, fraction = value.partition(".")
        whole(int(units) + bool(fraction), path, least=1)
        return value
    return str(whole(value, path, least=1))


def decimal(raw: msgspec.Raw, path: str) -> str | None:
    """A price as exact decimal text: a string, or a JSON number whose digits are taken as they stand."""
    spelled = bytes(raw).decode()
    if spelled in {"", "null"}:
        return None
    unquoted = spelled[1:-1] if spelled.startswith('"') else spelled
    if not _DECIMAL.fullmatch(unquoted):
        raise invalid(path, 'takes a decimal string such as "0.15": digits, a point, at most 12 decimals, no sign.')
    whole(int(unquoted.partition(".")[0]), path)
    return unquoted


def moment(value: str, path: str) -> datetime:
    """An instant: ISO 8601 with a zone, or the spelling we answer with (``2024-02-20 05:46:11.769107+00``)."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise invalid(path, "takes a time such as 2024-02-20T05:46:11Z.")
    day, clock, zone = found.groups()
    if zone is None:
        raise invalid(path, "must say its zone: end it with Z or an offset.", "zone_required")
    offset = "+00:00" if zone in {"Z", "z"} else zone if ":" in zone else f"{zone[:3]}:{zone[3:] or '00'}"
    if int(offset[1:3]) > 23 or int(offset[4:6]) > 59:  # noqa: PLR2004
        raise invalid(path, "has an offset that no zone has.", "unknown_zone")
    try:
        base, _, fraction = clock.partition(".")
        local = datetime.fromisoformat(f"{day}T{base}{f'.{fraction[:6]:0<6}' if fraction else ''}{offset}")
        return local.astimezone(UTC)
    except OverflowError as error:
        raise invalid(path, "lies outside the years 1 to 9999.", "out_of_range") from error
    except ValueError as error:
        raise invalid(path, "is not a time that exists.") from error


def metadata(raw: msgspec.Raw, path: str, longest: int = METADATA_MAX) -> str | None:
    """Free data as JSON text, unchanged; None where it is missing or null."""
    if len(raw) > longest:
        raise invalid(path, f"takes at most {longest} bytes of JSON.")
    spelled = bytes(raw).decode()
    return None if spelled in {"", "null"} else spelled


def seconds(value: int, path: str, most: timedelta) -> int:
    """A span of whole seconds."""
    return whole(value, path, most=int(most.total_seconds()))


def spelled(at: datetime | None) -> str | None:
    """An instant in the spelling of the contract (6.1, 26): ``2024-02-20 05:46:11.769107+00``."""
    return None if at is None else _spelled(at)


@lru_cache(maxsize=1024)
def _spelled(at: datetime) -> str:
    """Cached, because all that one batch answers carries the same moment."""
    return at.astimezone(UTC).isoformat(" ", "microseconds")[:-3]
