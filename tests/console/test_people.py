"""Users, the activity and one's own sign-in: what each role sees and may do, and what every page is sent with."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

import tenuto
from tenuto.console.app import OPEN, PAGES
from tenuto.core.user import CODE_SECONDS, ROLES
from tenuto.server import Server
from tests.console.colleagues import colleague, form, invited, own_headers, raw, signed_in
from tests.console.visitor import PASSWORD, Visitor

USERS: Final = "/control/settings/users"
YOU: Final = "/control/settings/you"
HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
}
POLICY: Final = (
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'"),
    *("base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'", "object-src 'none'"),
)
WRITTEN_OUT: Final = {"plan_edit.html": 1}
"""Where attributes that the template itself spells out are handed to a macro."""
TEMPLATES: Final = sorted((Path(tenuto.__file__).parent / "templates").glob("*.html"))


@pytest_asyncio.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    """The rows of the service: to move what would take hours."""
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def users(visitor: Visitor) -> dict[str, Any]:
    """All users of the company by address."""
    listed = visitor.company.call("GET", "/v1/companies/{company}/users")
    return {user["email"]: user for user in listed.data}


def id_of(visitor: Visitor, email: str) -> str:
    return str(users(visitor)[email]["id"])


# --- users ---


def test_users_are_shown_with_their_roles_and_what_those_may_do(visitor: Visitor) -> None:
    email, _ = invited(visitor, "read_only")
    seen = visitor.visit(USERS)
    assert seen.status == 200
    assert f"{visitor.email} (you)" in seen.words
    assert email in seen.words
    assert "invited until" in seen.words
    assert "What each role may do" in seen.words
    assert "Take back" in seen.words


def test_a_link_is_shown_once_and_lets_a_colleague_in(visitor: Visitor) -> None:
    grace = colleague(visitor, "finance")
    assert users(visitor)[grace.email]["status"] == "active"
    assert grace.visit(YOU).words.count("finance") >= 1
    assert "/control/join/" not in visitor.visit(USERS).text


def test_a_double_click_invites_once(visitor: Visitor) -> None:
    fields: dict[str, Any] = {"email": "grace@example.com", "role": "support", "_key": "the same key"}
    first, second = (visitor.send(USERS, **fields) for _ in range(2))
    assert first.status == second.status == 200
    assert first.attribute(r'id="link" value="([^"]+)"') == second.attribute(r'id="link" value="([^"]+)"')


def test_a_refusal_comes_back_as_a_note(visitor: Visitor) -> None:
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"email": visitor.email, "role": "admin"}, "has a user, or an invitation, with this address"),
        ({"email": "no address", "role": "admin"}, "takes an e-mail address"),
        ({"email": "eve@example.com", "role": "king"}, "is one of owner, admin"),
    )
    for fields, note in refusals:
        seen = visitor.send(USERS, came_from=USERS, **fields)
        assert seen.path == USERS
        assert note in seen.words
    assert len(users(visitor)) == 1


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "{{7*191}}", "x" * 200, '"><img src=x onerror=alert(1)>']
)
def test_hostile_names_are_text(service: Server, visitor: Visitor, name: str) -> None:
    visitor.company.call("PUT", "/v1/companies/{company}", {"name": name})
    visitor.company.call("POST", "/v1/companies/{company}/keys", {"name": name})
    agent = Visitor(visitor.address)
    headers = {**own_headers(agent), "user-agent": name}
    signed = raw(agent, "POST", "/control/sign-in", headers, form(email=visitor.email, password=PASSWORD))
    assert signed.status == 303
    _, path = invited(visitor, "support")
    for seen in (*(visitor.visit(page) for page in (USERS, YOU, "/control/settings/activity")), agent.visit(path)):
        assert seen.status == 200
        assert "<script>alert" not in seen.text
        assert "<img src=x" not in seen.text
        assert "1337" not in seen.words
    assert name[:60] in visitor.visit(YOU).words


# --- roles ---


def test_an_admin_makes_and_removes_no_owner(visitor: Visitor) -> None:
    admin = colleague(visitor, "admin")
    owner = id_of(visitor, visitor.email)
    assert "Invite somebody" in admin.visit(USERS).words
    tried: tuple[tuple[str, dict[str, Any]], ...] = (
        (USERS, {"email": "eve@example.com", "role": "owner"}),
        (f"{USERS}/{owner}/role", {"role": "admin"}),
        (f"{USERS}/{owner}/remove", {}),
        (f"{USERS}/{id_of(visitor, admin.email)}/role", {"role": "owner"}),
    )
    for path, fields in tried:
        seen = admin.send(path, came_from=USERS, **fields)
        assert "Only an owner" in seen.words, path
    assert {user["role"] for user in users(visitor).values()} == {"owner", "admin"}
    assert admin.send(f"{USERS}/{id_of(visitor, admin.email)}/role", role="admin").status == 200


def test_the_last_owner_stays(visitor: Visitor) -> None:
    owner = id_of(visitor, visitor.email)
    invited(visitor, "owner")
    for path in (f"{USERS}/{owner}/role", f"{USERS}/{owner}/remove"):
        assert "at least one owner" in visitor.send(path, came_from=USERS, role="admin").words
    second = colleague(visitor, "owner")
    assert visitor.send(f"{USERS}/{owner}/role", follow=False, role="read_only").status == 303
    assert users(visitor)[visitor.email]["role"] == "read_only"
    last = id_of(visitor, second.email)
    assert "at least one owner" in second.send(f"{USERS}/{last}/remove", came_from=USERS).words


def test_an_invited_owner_is_taken_back_or_made_less(visitor: Visitor) -> None:
    email, path = invited(visitor, "owner")
    changed = visitor.send(f"{USERS}/{id_of(visitor, email)}/role", role="support")
    assert "is support from now on" in changed.words
    removed = visitor.send(f"{USERS}/{id_of(visitor, email)}/remove")
    assert "is let in no more" in removed.words
    assert Visitor(visitor.address).visit(path).status == 404


def test_who_is_removed_is_out_with_the_next_request(visitor: Visitor) -> None:
    admin = colleague(visitor, "admin")
    assert admin.visit(USERS, follow=False).status == 200
    visitor.send(f"{USERS}/{id_of(visitor, admin.email)}/remove")
    assert admin.visit(USERS, follow=False).status == 303
    body = form(_csrf=admin.csrf, email="eve@example.com", role="admin")
    assert raw(admin, "POST", USERS, own_headers(admin), body).status == 303
    assert set(users(visitor)) == {visitor.email}
    again = Visitor(visitor.address).send("/control/sign-in", email=admin.email, password=PASSWORD)
    assert again.status == 401


def test_another_role_is_another_session(visitor: Visitor) -> None:
    admin = colleague(visitor, "admin")
    visitor.send(f"{USERS}/{id_of(visitor, admin.email)}/role", role="support")
    assert admin.visit(USERS, follow=False).status == 303, "the old session is over"
    support = signed_in(visitor.address, visitor.company, admin.email)
    refused = support.send(USERS, came_from=USERS, email="eve@example.com", role="read_only")
    assert "Your role, support, cannot do this." in refused.words
    assert len(users(visitor)) == 2


@pytest.mark.parametrize("role", [role for role in ROLES if role != "owner"])
def test_a_role_opens_the_pages_of_its_scopes_and_no_other(visitor: Visitor, role: str) -> None:
    who = colleague(visitor, role)
    for page in PAGES:
        path = re.sub(r"{\w+}", "x", page.path)
        lacks = page.scope is not None and page.scope not in ROLES[role]
        if page.method == "GET":
            if page.path == "/control/stream":
                continue
            status = raw(who, "GET", path, {}).status
            assert status < 500, (page.path, role)
            assert status == 403 or not lacks, (page.path, role)
        elif lacks:
            headers = {name: value for name, value in own_headers(who).items() if name != "referer"}
            assert raw(who, "POST", path, headers, form(_csrf=who.csrf)).status == 403, (page.path, role)


@pytest.mark.parametrize(
    ("role", "scope", "may"),
    [
        ("finance", "keys:write", False),
        ("finance", "catalog:write", False),
        ("finance", "users:write", False),
        ("finance", "company:write", False),
        ("finance", "payments:write", True),
        ("support", "payments:write", False),
        ("support", "reports:read", False),
        ("support", "accounts:write", True),
        ("read_only", "accounts:write", False),
        ("admin", "keys:write", True),
    ],
)
def test_what_a_role_may_not_stands_on_no_page_of_the_users(visitor: Visitor, role: str, scope: str, may: bool) -> None:  # noqa: FBT001
    who = colleague(visitor, role)
    assert (scope in ROLES[role]) is may
    words = who.visit(USERS).words
    assert ("Invite somebody" in words) is ("users:write" in ROLES[role])


def test_a_password_given_long_ago_is_asked_for_again(visitor: Visitor) -> None:
    assert {page.path for page in PAGES if page.path.startswith(USERS) and page.method == "POST"} == {
        page.path for page in PAGES if page.path.startswith(USERS) and page.fresh
    }
    assert all(page.method == "POST" for page in PAGES if page.fresh), "a page that is read cannot ask"


async def test_what_was_asked_is_done_with_the_password(visitor: Visitor, rows: asyncpg.Connection) -> None:
    await grown_old(rows, visitor)
    asked = visitor.send(USERS, email="grace@example.com", role="support")
    assert "Your password, please" in asked.words
    assert set(users(visitor)) == {visitor.email}
    kept = asked.attribute(r'name="_kept" value="([0-9a-f]+)"')

    wrong = visitor.send(USERS, _kept=kept, _password="not the password")
    assert "The password is not right." in wrong.words
    early = visitor.send(USERS, _kept=kept, _password=PASSWORD)
    assert "Wait" in early.words
    assert set(users(visitor)) == {visitor.email}
    await rows.execute("update sign_in_failure set at = at - interval '1 hour' where email = $1", visitor.email)
    done = visitor.send(USERS, _kept=kept, _password=PASSWORD)
    assert "grace@example.com is invited" in done.words
    assert visitor.send(USERS, email="sue@example.com", role="support").words.count("is invited") >= 1


async def grown_old(rows: asyncpg.Connection, visitor: Visitor) -> None:
    """Let the password have been given half an hour ago."""
    digest = hashlib.sha256(visitor.cookies["tenuto_session"].encode()).digest()
    await rows.execute(
        "update console_session set authenticated_at = authenticated_at - interval '30 minutes' where digest = $1",
        digest,
    )


# --- one's own sign-in ---


def test_sessions_are_listed_and_ended(visitor: Visitor) -> None:
    other, third = (signed_in(visitor.address, visitor.company, visitor.email) for _ in range(2))
    seen = visitor.visit(YOU)
    assert seen.words.count("this one") == 1
    handles = re.findall(r'name="session" value="([0-9a-f]{64})"', seen.text)
    assert len(handles) == 2
    mine = hashlib.sha256(visitor.cookies["tenuto_session"].encode()).hexdigest()
    assert mine not in handles

    theirs = hashlib.sha256(other.cookies["tenuto_session"].encode()).hexdigest()
    visitor.send(f"{YOU}/sessions/end", session=theirs)
    assert other.visit("/", follow=False).status == 303
    assert third.visit("/", follow=False).status == 200
    ended = visitor.send(f"{YOU}/sessions/end")
    assert "All your other sessions have ended." in ended.words
    assert third.visit("/", follow=False).status == 303
    assert visitor.visit("/", follow=False).status == 200


def test_nobody_ends_the_session_of_somebody_else(visitor: Visitor) -> None:
    grace = colleague(visitor, "admin")
    theirs = hashlib.sha256(visitor.cookies["tenuto_session"].encode()).hexdigest()
    for handle in (theirs, "00", "no hex", "\x00"):
        seen = grace.send(f"{YOU}/sessions/end", came_from=YOU, session=handle)
        assert "Ended." not in seen.words
    assert visitor.visit("/", follow=False).status == 200


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"_password": "not the password", "password": "another password", "again": "another password"}, "not right"),
        ({"_password": "", "password": "another password", "again": "another password"}, "not right"),
        ({"_password": PASSWORD, "password": "another password", "again": "another one here"}, "not the same twice"),
        ({"_password": PASSWORD, "password": "short", "again": "short"}, "takes 12 to 1024 characters"),
        ({"_password": PASSWORD, "password": "x1y2" * 300, "again": "x1y2" * 300}, "takes 12 to 1024 characters"),
    ],
)
async def test_a_password_is_changed_by_who_knows_it(
    visitor: Visitor, rows: asyncpg.Connection, fields: dict[str, Any], note: str
) -> None:
    seen = visitor.send(f"{YOU}/password", came_from=YOU, **fields)
    assert note in seen.words
    await rows.execute("delete from sign_in_failure where email = $1", visitor.email)
    assert signed_in(visitor.address, visitor.company, visitor.email).visit("/").status == 200


async def test_an_authenticator_is_set_up_asked_for_and_switched_off(
    visitor: Visitor, rows: asyncpg.Connection
) -> None:
    begun = visitor.send(f"{YOU}/code")
    assert "data:image/svg+xml" in begun.attribute(r'<img src="([^"]+)" alt="A QR code')
    secret = base32(re.findall(r"<code>((?:[A-Z2-7]{4} ?){8})</code>", begun.text)[0])
    sealed = begun.attribute(r'name="sealed" value="([0-9a-f]+)"')
    wrong = visitor.send(f"{YOU}/code/on", came_from=YOU, sealed=sealed, code="000000", _back=YOU)
    assert "is not the one that the authenticator shows now" in wrong.words
    foreign = visitor.send(f"{YOU}/code/on", came_from=YOU, sealed="00ff", code="000000")
    assert "begin anew" in foreign.words

    now = await rows.fetchval("select extract(epoch from now())::float8")
    done = visitor.send(f"{YOU}/code/on", sealed=sealed, code=code_of(secret, now))
    assert "From now on you sign in with your password and a code." in done.words
    assert users(visitor)[visitor.email]["two_factor"] is True

    stranger = Visitor(visitor.address)
    asked = stranger.send("/control/sign-in", email=visitor.email, password=PASSWORD)
    assert (asked.status, "Code of your authenticator" in asked.words) == (401, True)
    later = code_of(secret, now + CODE_SECONDS)
    let_in = stranger.send("/control/sign-in", email=visitor.email, password=PASSWORD, code=later)
    assert (let_in.status, let_in.path) == (200, "/")
    replayed = Visitor(visitor.address).send("/control/sign-in", email=visitor.email, password=PASSWORD, code=later)
    assert replayed.status == 401

    off = visitor.send(f"{YOU}/code/off")
    assert "Your password alone will do again." in off.words
    await rows.execute("delete from sign_in_failure where email = $1", visitor.email)
    assert signed_in(visitor.address, visitor.company, visitor.email).visit("/").status == 200
    told = visitor.company.call("GET", "/v1/companies/{company}/activity?limit=1000").data
    assert {"ask_for_codes", "ask_for_no_codes", "sign_in"} <= {row["action"] for row in told}
    assert sealed not in str(told)


def base32(text: str) -> bytes:
    return base64.b32decode(text.replace(" ", ""))


def code_of(secret: bytes, at: float) -> str:
    return TOTP(secret, 6, SHA1(), CODE_SECONDS).generate(at).decode()


def test_a_sealed_secret_of_another_session_is_not_taken(visitor: Visitor) -> None:
    other = signed_in(visitor.address, visitor.company, visitor.email)
    begun = other.send(f"{YOU}/code")
    sealed = begun.attribute(r'name="sealed" value="([0-9a-f]+)"')
    assert "begin anew" in visitor.send(f"{YOU}/code/on", came_from=YOU, sealed=sealed, code="000000").words


# --- what was done ---


def test_the_activity_is_shown_filtered_and_exported(visitor: Visitor) -> None:
    invited(visitor, "support", "grace@example.com")
    seen = visitor.visit("/control/settings/activity")
    assert seen.status == 200
    assert "invite user" in seen.words
    assert "sign in" in seen.words
    assert "grace@example.com" in seen.words, "the body stands in the flyover"
    only = visitor.visit("/control/settings/activity?action=sign_in")
    assert "invite user" not in only.words
    exported = visitor.visit("/control/settings/activity?format=csv")
    assert exported.headers["content-type"].startswith("text/csv")
    assert "invite_user" in exported.text


# --- every page ---


@pytest.mark.parametrize(
    ("method", "path"),
    sorted(
        {
            *((page.method, page.path) for page in PAGES if page.path not in {"/control/stream", "/control/sign-out"}),
            *((method, path) for method, path, _ in OPEN),
            ("GET", "/control/nowhere"),
            ("GET", "/control"),
            ("DELETE", "/control/settings/users"),
            ("GET", "/control/sign-out"),
            ("GET", "/control/settings/users?" + "a=1&" * 60),
        }
    ),
)
def test_every_page_and_every_refusal_has_all_headers(visitor: Visitor, method: str, path: str) -> None:
    path = re.sub(r"{\w+}", "x", path)
    stranger = Visitor(visitor.address)
    for who in (visitor, stranger):
        for body in (None,) if method != "POST" else (b"", form(_csrf=who.csrf)):
            seen = raw(who, method, path, own_headers(who) if method == "POST" else {}, body)
            assert seen.status < 500, seen
            assert {name: seen.headers.get(name) for name in HEADERS} == HEADERS, (path, seen.status)
            policy = seen.headers["content-security-policy"]
            assert set(POLICY) <= {part.strip() for part in policy.split(";")}
            assert "unsafe" not in policy
            if not seen.headers.get("content-type", "text/html").startswith("text/csv"):
                assert seen.status == 303 or seen.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_script_or_style_of_its_own(template: Path) -> None:
    text = template.read_text()
    marks = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", text, flags=re.DOTALL)
    assert not re.search(r"<style\b", text)
    assert not re.search(r"\sstyle\s*=", marks)
    assert not re.search(r"\son[a-z]+\s*=", marks)
    assert not re.search(r"javascript:", text, re.IGNORECASE)
    assert not re.search(r"<script\b(?![^>]*\bsrc=\"/static/)", text)
    assert not re.search(r"<script\b[^>]*>[^<]", text)
    assert not re.search(r"(src|href|action)\s*=\s*\"(https?:)?//", text)
    assert text.count("| safe") <= WRITTEN_OUT.get(template.name, 0)
    for one in re.findall(r"<form\b[^>]*method=\"post\".*?</form>", text, re.DOTALL):
        outside = template.name in {"sign_in.html", "sign_up.html", "join.html"}
        assert outside or "csrf_field()" in one or 'name="_csrf"' in one, one[:200]
