"""What an account may do, flag by flag: as it stands, set by hand, and who made it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from litestar import Response

from tenuto.core.outcomes import invalid

from . import account_head
from .formats import read_amount
from .forms import read_denomination
from .frame import Page, Visit
from .tables import Column, Listing, show

_FLAGS: Final = "/accounts/{account_id}/flags"
_FLAG: Final = f"{_FLAGS}/{{name}}"
TYPES: Final = (("binary", "On or off"), ("limit", "A limit"), ("text", "A text"), ("metered", "Follows a balance"))
SOURCES: Final = {
    "plan": "its plan",
    "operator": "set by hand",
    "system": "the system",
    "balance": "its balance",
    "none": "nobody",
}
HISTORY: Final = Listing(
    name="flag-history",
    path="/accounts/{account_id}/flags/{name}/history",
    columns=(
        Column("changed_at", "When", "moment"),
        Column("before", "Before"),
        Column("after", "After"),
        Column("source", "By"),
        Column("actor", "Who", "code"),
        Column("reason", "Why"),
    ),
    empty="This flag has not changed yet.",
    hint="Every change of it stands here, with who made it and why.",
)


def flag_words(flag: Mapping[str, Any] | None) -> str:
    """What a flag says, in words; ``flag`` as the API shows one, or as its history does."""
    if flag is None:
        return "not there"
    match flag["type"]:
        case "limit":
            return f"up to {flag['value']}"
        case "text":
            return str(flag["value"]) or "an empty text"
        case "metered":
            return f"follows {flag['denomination']}: {'on' if flag['enabled'] else 'off'}"
        case _:
            return "on" if flag["enabled"] else "off"


def read_flag(kind: str, text: str) -> bool | int | str | dict[str, str]:
    """The value of a flag as a form gives it. Raises Refusal ``invalid_field``."""
    match kind:
        case "binary" if text.casefold() in {"on", "off"}:
            return text.casefold() == "on"
        case "binary":
            raise invalid("value", "is on or off.")
        case "limit":
            return read_amount(text, "", "value")
        case "text":
            return text
        case "metered":
            return {"metered": read_denomination(text, "value")}
        case _:
            raise invalid("type", f"is one of {', '.join(name for name, _ in TYPES)}.")


def flag_path(account_id: str, name: str) -> str:
    """The page of one flag."""
    return f"/control/accounts/{account_id}/flags/{quote(name, safe='')}"


async def flags(visit: Visit) -> Response[Any]:
    """All flags of an account as they stand."""
    account = await account_head.head(visit)
    found = (await visit.rows(_FLAGS, account_id=account["id"])).rows
    return visit.page(
        "flags.html",
        account=account,
        flags=found,
        amounts=await _amounts(visit, account["id"]),
        words=flag_words,
        sources=SOURCES,
        types=TYPES,
        path=flag_path,
    )


async def _amounts(visit: Visit, account_id: str) -> dict[str, int]:
    """What the account's balances hold, where the user may see it."""
    if not visit.may("balances:read"):
        return {}
    found = await visit.rows("/accounts/{account_id}/balances", account_id=account_id)
    return {row["denomination"]: row["amount"] for row in found.rows}


async def flag(visit: Visit) -> Response[Any]:
    """One flag, how to change it, and what became of it."""
    account, name = await account_head.head(visit), visit.param("name")
    found = await visit.get(_FLAG, account_id=account["id"], name=name)
    return visit.page(
        "flags_one.html",
        account=account,
        flag=found,
        amounts=await _amounts(visit, account["id"]),
        words=flag_words,
        sources=SOURCES,
        types=TYPES,
        path=flag_path,
        history=await show(visit, HISTORY, account_id=account["id"], name=name),
    )


async def set_flag(visit: Visit) -> Response[Any]:
    """Set a flag for this account, over what its plan says."""
    account_id = visit.param("account_id")
    name = visit.field("name") or visit.param("name")
    body: dict[str, Any] = {"value": read_flag(visit.field("type"), visit.field("value"))}
    if visit.field("reason"):
        body["reason"] = visit.field("reason")
    done = await visit.do("PUT", _FLAG, body, account_id=account_id, name=name)
    return visit.go(visit.came_from(), f"The flag {name} is set: {flag_words(done)}.")


async def new_flag(visit: Visit) -> Response[Any]:
    """Set a flag that the account's plan says nothing of."""
    if not visit.field("name"):
        raise invalid("name", "is missing: say which flag is meant.", "missing_field")
    return await set_flag(visit)


async def clear_flag(visit: Visit) -> Response[Any]:
    """Take back what was set for this account: its plan's word holds again."""
    name, reason = visit.param("name"), visit.field("reason")
    query = {"reason": reason} if reason else None
    done = await visit.do("DELETE", _FLAG, query=query, account_id=visit.param("account_id"), name=name)
    left = "it is not there any more" if done["source"] == "none" else f"its plan says {flag_words(done)}"
    return visit.go(visit.came_from(), f"What was set for {name} is taken back; {left}.")


_ALL: Final = "/control/accounts/{account_id}/flags"
PAGES: Final = (
    Page("GET", _ALL, flags, "accounts:read"),
    Page("POST", _ALL, new_flag, "accounts:write"),
    Page("GET", f"{_ALL}/{{name}}", flag, "accounts:read"),
    Page("POST", f"{_ALL}/{{name}}", set_flag, "accounts:write"),
    Page("POST", f"{_ALL}/{{name}}/clear", clear_flag, "accounts:write"),
)
