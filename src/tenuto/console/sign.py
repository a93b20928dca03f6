"""Signing up, in and out: the pages for those who are not there yet.

They have no session whose token a form could carry, so what protects them is where the form came from. Who is refused
is told the same whoever they claimed to be.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response
from litestar.response import Redirect

from tenuto.core.identifiers import read, spell
from tenuto.core.outcomes import Kind, Refusal
from tenuto.core.user import PASSWORD_MIN
from tenuto.service import users
from tenuto.service.users import SignedIn

from . import frame
from .formats import locale_of
from .frame import COMPANY_COOKIE, HEADERS, SIGN_IN, Asked, House, came, own_path, read_form, refuse_foreign, said


def _shown(request: Asked, template: str, *, status: int = 200, **values: Any) -> Response[str]:
    locale = locale_of(request.headers.get("accept-language", ""))
    text = frame.render(template, locale, {"problem": "", "password_min": PASSWORD_MIN, **values})
    return Response(text, media_type="text/html", status_code=status, headers=HEADERS)


def _status(refusal: Refusal) -> int:
    """The status of a form that was refused: the same whoever somebody claimed to be."""
    match refusal.kind:
        case Kind.FORBIDDEN:
            return 403
        case Kind.UNAUTHORIZED:
            return 401
        case Kind.BUSY:
            return 429 if refusal.code == "sign_in_delayed" else 503
        case Kind.MISSING:
            return 404
        case Kind.MEDIA:
            return 415
        case Kind.TOO_LARGE:
            return 413
        case _:
            return 422


async def _form(house: House, request: Asked) -> dict[str, str]:
    refuse_foreign(house.engine, request)
    return {name: values[-1] for name, values in (await read_form(request)).items()}


async def sign_in_page(house: House, request: Asked) -> Response[Any]:
    """Where one signs in."""
    if await frame.session_of(house.engine, request) is not None:
        return Redirect("/", status_code=303, headers=HEADERS)
    then = own_path(request.query_params.get("next", "/"))
    company = request.query_params.get("company", "")
    return _shown(
        request, "sign_in.html", then=then, email="", company=company, needs_code=False, is_open=_is_open(house)
    )


def _is_open(house: House) -> bool:
    return house.engine.settings.is_registration_open


async def sign_in(house: House, request: Asked) -> Response[Any]:
    """Address, password, and where it is asked for the code of an authenticator."""
    form: dict[str, str] = {}
    try:
        form = await _form(house, request)
        done = await users.sign_in(
            house.engine,
            email=form.get("email", ""),
            password=form.get("password", ""),
            code=form.get("code", ""),
            came=came(request),
            company_id=read("c", form.get("company", "").strip() or request.cookies.get(COMPANY_COOKIE, "")),
            is_only=bool(form.get("company", "").strip()),
        )
    except Refusal as refusal:
        return _shown(
            request,
            "sign_in.html",
            company=form.get("company", ""),
            status=_status(refusal),
            problem=said(refusal),
            then=own_path(form.get("next", "/")),
            email=form.get("email", ""),
            needs_code=refusal.code == "code_needed",
            is_open=_is_open(house),
        )
    return _in(house, done, own_path(form.get("next", "/")))


def _in(house: House, done: SignedIn, path: str) -> Response[Any]:
    """On to a page, signed in. The browser keeps which company it was, for whoever is in several."""
    response: Response[Any] = Redirect(path, status_code=303, headers=HEADERS)
    response.set_cookie(frame.company_cookie(house.engine, spell("c", done.session.user.company_id)))
    response.set_cookie(frame.session_cookie(house.engine, done.token))
    return response


async def sign_up_page(house: House, request: Asked) -> Response[Any]:
    """Where a company is opened."""
    return _shown(request, "sign_up.html", form={}, is_open=_is_open(house))


async def sign_up(house: House, request: Asked) -> Response[Any]:
    """Open a company and sign its first user in. Its first key is shown on the next page, once."""
    form: dict[str, str] = {}
    try:
        form = await _form(house, request)
        asked = {"name": form.get("name", ""), "email": form.get("email", ""), "password": form.get("password", "")}
        answer = await house.ask(
            None,
            None,
            "POST",
            "/companies",
            params={},
            query={},
            body=msgspec.json.encode(asked),
            key="",
            address=came(request).address,
        )
        opened = msgspec.json.decode(answer.body)["data"]
        company_id, user_id = read("c", opened["id"]), read("u", opened["user"]["id"])
        assert company_id is not None
        assert user_id is not None
        done = await users.begin(house.engine, company_id, user_id, came(request))
    except Refusal as refusal:
        status = _status(refusal)
        return _shown(request, "sign_up.html", status=status, problem=said(refusal), form=form, is_open=_is_open(house))
    response = _shown(request, "first_key.html", key=opened["api_key"], company_id=opened["id"])
    response.set_cookie(frame.session_cookie(house.engine, done.token))
    return response


def _closed(request: Asked, refusal: Refusal) -> Response[Any]:
    is_over = refusal.code == "link_not_usable"
    title, status = ("This invitation is over", 404) if is_over else ("Not possible", _status(refusal))
    return _shown(request, "closed.html", status=status, title=title, text=refusal.message)


async def join_page(house: House, request: Asked) -> Response[Any]:
    """Where an invitation is taken."""
    try:
        user, company = await users.open_invitation(house.engine, str(request.path_params["token"]))
    except Refusal as refusal:
        return _closed(request, refusal)
    return _shown(request, "join.html", email=user.email, company=company, role=user.role)


async def join(house: House, request: Asked) -> Response[Any]:
    """Take an invitation with a password of one's own, and be signed in."""
    token = str(request.path_params["token"])
    try:
        form = await _form(house, request)
        user, company = await users.open_invitation(house.engine, token)
    except Refusal as refusal:
        return _closed(request, refusal)
    try:
        done = await users.join(house.engine, token, form.get("password", ""), came(request))
    except Refusal as refusal:
        if refusal.code == "link_not_usable":
            return _closed(request, refusal)
        shown = {"email": user.email, "company": company, "role": user.role}
        return _shown(request, "join.html", status=_status(refusal), problem=said(refusal), **shown)
    return _in(house, done, "/")


def signed_out(house: House) -> Response[Any]:
    """On to the sign-in, without a cookie."""
    response: Response[Any] = Redirect(SIGN_IN, status_code=303, headers=HEADERS)
    response.set_cookie(frame.session_cookie(house.engine, None))
    return response
