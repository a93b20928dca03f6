"""Settings: whose tokens the company believes, the tokens it mints itself, and its tree of organizations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Response

from tenuto.core.organization import READ_SCOPE, WRITE_SCOPE
from tenuto.core.outcomes import Refusal, invalid
from tenuto.service.issuers import ALGORITHMS

from .forms import REFUSED, chosen, read_duration, said, spelled_duration, typed, typed_duration
from .frame import Page, Visit
from .settings import ROOT
from .tables import Column, Listing, export, show

LIST: Final = "/companies/{company_id}/issuers"
ONE: Final = LIST + "/{issuer_id}"
TOKENS: Final = "/companies/{company_id}/tokens"
PLACES: Final = "/companies/{company_id}/organizations"
PLACE: Final = PLACES + "/{external_id}"
SCOPES: Final[Mapping[str, str]] = {
    READ_SCOPE: "see its account, plan, usage and invoices",
    WRITE_SCOPE: "change its card, address and plan",
}
"""What a token of an organization lets somebody do, in words."""
DEEP: Final = 6
"""How deep the tree is indented at most."""


async def issuers(visit: Visit) -> Response[Any]:
    """Whose tokens are believed, and the form that mints one."""
    form = {"organization_id": "", "user_id": "", "scopes": [READ_SCOPE], "timezone": visit.environment.zone_name}
    return await _issuers_page(visit, {**form, **spelled_duration("life", 900)})


async def _issuers_page(visit: Visit, form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    return visit.page(
        "settings_issuers.html",
        status=REFUSED if problem else 200,
        issuers=await visit.get(LIST),
        form=form,
        scopes=SCOPES,
        problem=problem,
    )


# --- one issuer -------------------------------------------------------------------------------------------------------

_NEW: Final[Mapping[str, Any]] = {
    "issuer": "",
    "audience": "",
    "algorithm": "RS256",
    "source": "jwks_url",
    "jwks_url": "",
    "keys": "",
    "secret_encoding": "text",
    "creates_organizations": "",
}


def _form(visit: Visit) -> dict[str, Any]:
    """What was typed but the secret, which nobody is shown."""
    return {**typed(visit, *_NEW), **typed_duration(visit, "max_life")}


def _source(visit: Visit, form: Mapping[str, Any]) -> dict[str, Any]:
    """Where the keys come from. Nothing where nothing was typed: then what is there stays."""
    match form["source"]:
        case "jwks_url" if form["jwks_url"]:
            return {"jwks_url": form["jwks_url"]}
        case "keys" if form["keys"]:
            return {"keys": _keys(form["keys"])}
        case "secret" if visit.field("secret"):
            return {"secret": visit.field("secret"), "secret_encoding": form["secret_encoding"]}
        case _:
            return {}


def _keys(text: str) -> list[Any]:
    """Public keys as they are pasted: one JWK, a list of them, or a JWKS."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise invalid("keys", "take JSON: a JWKS, or the list of its keys.") from error
    if isinstance(found, dict):
        found = found.get("keys", [found])
    if not isinstance(found, list):
        raise invalid("keys", "take JSON: a JWKS, or the list of its keys.")
    return found


def _body(visit: Visit, form: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "algorithm": form["algorithm"],
        "creates_organizations": bool(form["creates_organizations"]),
        "max_life_seconds": read_duration(visit, "max_life"),
        **_source(visit, form),
    }


def _new_page(visit: Visit, form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    status = REFUSED if problem else 200
    return visit.page("settings_issuer_new.html", status=status, form=form, algorithms=ALGORITHMS, problem=problem)


async def new_issuer(visit: Visit) -> Response[Any]:
    """The form of an issuer."""
    return _new_page(visit, {**_NEW, **spelled_duration("max_life", 86_400)})


async def make_issuer(visit: Visit) -> Response[Any]:
    """Believe an issuer from now on."""
    form = _form(visit)
    try:
        names = {"issuer": form["issuer"], "audience": form["audience"]}
        made = await visit.do("POST", LIST, {**names, **_body(visit, form)})
    except Refusal as refusal:
        return _new_page(visit, form, said(refusal))
    return visit.go(f"{ROOT}/issuers/{made['id']}", "Tokens of this issuer are believed from now on.")


async def issuer(visit: Visit) -> Response[Any]:
    """One issuer, with the public keys that are kept of it."""
    found = await visit.get(ONE, issuer_id=visit.param("issuer_id"))
    return _issuer_page(visit, found, _issuer_form(found))


def _issuer_form(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_NEW,
        "algorithm": found["algorithm"],
        "source": "secret" if found["has_secret"] else "jwks_url" if found["jwks_url"] else "keys",
        "creates_organizations": "on" if found["creates_organizations"] else "",
        **spelled_duration("max_life", found["max_life_seconds"]),
    }


def _issuer_page(visit: Visit, found: Mapping[str, Any], form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    return visit.page(
        "settings_issuer.html",
        status=REFUSED if problem else 200,
        issuer=found,
        form=form,
        algorithms=ALGORITHMS,
        problem=problem,
    )


async def change_issuer(visit: Visit) -> Response[Any]:
    """Change how an issuer's tokens are judged."""
    issuer_id, form = visit.param("issuer_id"), _form(visit)
    try:
        await visit.do("PUT", ONE, _body(visit, form), issuer_id=issuer_id)
    except Refusal as refusal:
        return _issuer_page(visit, await visit.get(ONE, issuer_id=issuer_id), form, said(refusal))
    return visit.go(f"{ROOT}/issuers/{issuer_id}", "Saved.")


async def refresh_issuer(visit: Visit) -> Response[Any]:
    """Fetch the published keys now."""
    issuer_id = visit.param("issuer_id")
    found = await visit.do("POST", ONE + "/refresh", issuer_id=issuer_id)
    if found["fetch_error"]:
        return visit.go(f"{ROOT}/issuers/{issuer_id}", f"No keys came: {found['fetch_error']}", is_bad=True)
    return visit.go(f"{ROOT}/issuers/{issuer_id}", f"Keys were fetched: {len(found['keys'])} are known.")


async def delete_issuer(visit: Visit) -> Response[Any]:
    """Believe an issuer no more."""
    await visit.do("DELETE", ONE, issuer_id=visit.param("issuer_id"))
    return visit.go(f"{ROOT}/issuers", "Its tokens are believed no more.")


# --- minted tokens ----------------------------------------------------------------------------------------------------


async def mint(visit: Visit) -> Response[Any]:
    """Mint a token and show it this once."""
    form = {
        **typed(visit, "organization_id", "user_id", "timezone"),
        "scopes": chosen(visit, "scope", tuple(SCOPES)),
        **typed_duration(visit, "life"),
    }
    try:
        body = {
            "organization_id": form["organization_id"],
            "user_id": form["user_id"] or None,
            "scopes": form["scopes"],
            "timezone": form["timezone"],
            "life_seconds": read_duration(visit, "life"),
        }
        made = await visit.do("POST", TOKENS, body)
    except Refusal as refusal:
        return await _issuers_page(visit, form, said(refusal))
    return visit.page("settings_token.html", token=made, form=form)


async def revoke_minted(visit: Visit) -> Response[Any]:
    """Revoke every token that was minted so far."""
    await visit.do("POST", TOKENS + "/revoke")
    return visit.go(f"{ROOT}/issuers", "No token that was minted before is good any more.")


# --- organizations ----------------------------------------------------------------------------------------------------


def _below(row: Mapping[str, Any]) -> str:
    return f"{ROOT}/organizations?parent={quote(row['parent'], safe='')}" if row["parent"] else ""


def _account(row: Mapping[str, Any]) -> str:
    return f"/control/accounts/{row['account_id']}" if row["account_id"] else ""


ORGANIZATIONS: Final = Listing(
    name="organizations",
    path=PLACES,
    columns=(
        Column("tree", "Organization", sorts=False),
        Column("name", "Name"),
        Column("parent", "Below", filter="parent", link=_below),
        Column("owner", "Owner"),
        Column("account_id", "Account", "code", filter="account_id", link=_account),
    ),
    empty="There is no organization yet.",
    hint="The first token of an organization makes it, or make one here.",
)


def arranged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as a tree, each after the one above it, with its ``depth``; one whose parent is not shown is at the top."""
    known = {row["id"] for row in rows}
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in rows:
        below.setdefault(row["parent"] if row["parent"] in known else None, []).append(row)
    found: list[dict[str, Any]] = []
    waiting = [(row, 0) for row in reversed(below.get(None, []))]
    while waiting:
        row, depth = waiting.pop()
        indent = f"{chr(0x2003) * (min(depth, DEEP) - 1)}└ " if depth else ""
        found.append({**row, "depth": depth, "tree": f"{indent}{row['id']}"})
        waiting.extend((child, depth + 1) for child in reversed(below.get(row["id"], [])))
    return found


_PLACED: Final = ("id", "name", "owner", "parent", "account_id")


async def organizations(visit: Visit) -> Response[Any]:
    """The company's customers as they stand below one another."""
    if visit.query.get("format") == "csv":
        return await export(
            visit, ORGANIZATIONS._replace(columns=(Column("id", "Organization"), *ORGANIZATIONS.columns[1:]))
        )
    form = dict.fromkeys(_PLACED, "")
    if visit.query.get("edit"):
        found = await visit.get(PLACE, external_id=visit.query["edit"])
        form = {name: found[name] or "" for name in _PLACED}
    return await _organizations_page(visit, form)


async def _organizations_page(visit: Visit, form: Mapping[str, str], problem: str = "") -> Response[Any]:
    table = await show(visit, ORGANIZATIONS)
    is_tree = not (table.sort or table.filters)
    rows = arranged(table.rows) if is_tree else [{**row, "tree": row["id"]} for row in table.rows]
    return visit.page(
        "settings_organizations.html",
        status=REFUSED if problem else 200,
        table=table._replace(rows=rows),
        form=form,
        is_known=bool(visit.query.get("edit")),
        problem=problem,
    )


async def place_organization(visit: Visit) -> Response[Any]:
    """Make an organization, or change or move one."""
    form = typed(visit, *_PLACED)
    body: dict[str, Any] = {
        "name": form["name"],
        "owner": form["owner"] or None,
        "parent": form["parent"] or None,
    }
    if form["account_id"]:
        body["account_id"] = form["account_id"]
    try:
        await visit.do("PUT", PLACE, body, external_id=form["id"])
    except Refusal as refusal:
        text = "The id takes 1 to 255 printable characters." if refusal.code == "not_found" else said(refusal)
        return await _organizations_page(visit, form, text)
    return visit.go(f"{ROOT}/organizations", "Saved.")


async def delete_organization(visit: Visit) -> Response[Any]:
    """Forget an organization that has no account and none below it."""
    await visit.do("DELETE", PLACE, external_id=visit.field("id"))
    return visit.go(f"{ROOT}/organizations", "The organization is gone.")


PAGES: Final = (
    Page("GET", f"{ROOT}/issuers", issuers, "company:read"),
    Page("GET", f"{ROOT}/issuers/new", new_issuer, "company:write"),
    Page("POST", f"{ROOT}/issuers/new", make_issuer, "company:write", fresh=True),
    Page("GET", f"{ROOT}/issuers/{{issuer_id}}", issuer, "company:read"),
    Page("POST", f"{ROOT}/issuers/{{issuer_id}}", change_issuer, "company:write", fresh=True),
    Page("POST", f"{ROOT}/issuers/{{issuer_id}}/refresh", refresh_issuer, "company:write"),
    Page("POST", f"{ROOT}/issuers/{{issuer_id}}/delete", delete_issuer, "company:write", fresh=True),
    Page("GET", f"{ROOT}/tokens", issuers, "company:read"),
    Page("POST", f"{ROOT}/tokens", mint, "company:write", fresh=True),
    Page("POST", f"{ROOT}/tokens/revoke", revoke_minted, "company:write", fresh=True),
    Page("GET", f"{ROOT}/organizations", organizations, "accounts:read"),
    Page("POST", f"{ROOT}/organizations", place_organization, "accounts:write"),
    Page("POST", f"{ROOT}/organizations/delete", delete_organization, "accounts:write"),
)
