"""Webhooks and flagbacks in the console: made, changed, tried, and what was answered, on a service that calls here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tenuto.core.topic import TOPICS
from tenuto.server import Server
from tests.client import Client
from tests.console.colleagues import colleague
from tests.console.visitor import Seen, Visitor
from tests.receivers import Receivers, answer, until

HOSTILE = "<script>{{7*7}}</script>"
AT = "/control/settings/webhooks"
PLAIN: dict[str, Any] = {"url": "", "username": "", "password": "", "description": "", "max_in_flight": "2"}


@pytest.fixture
def visitor(calling_service: Server) -> Iterator[Visitor]:
    """The owner of a fresh company of the service that calls, signed in."""
    with Client(*calling_service.address) as client:
        yield Visitor.signed_up(client, calling_service.address)


def secret_of(seen: Seen) -> str:
    return seen.attribute(r'id="secret" value="([^"]+)"')


def listed(visitor: Visitor) -> list[Any]:
    found: list[Any] = visitor.company.call("GET", "/v1/companies/{company}/webhooks").data
    return found


def only(visitor: Visitor) -> Any:
    """The one webhook of the company, as the API tells it."""
    (found,) = listed(visitor)
    return found


def made(visitor: Visitor, **fields: Any) -> str:
    """The path of a new webhook."""
    seen = visitor.send(f"{AT}/new", **{**PLAIN, **fields})
    assert seen.status == 200, seen.words
    return f"{AT}/{only(visitor)['id']}"


def tried(visitor: Visitor, hook: str) -> Any:
    """The newest delivery to a webhook, once it was tried."""

    def rows() -> Any:
        return visitor.company.call("GET", f"/v1/companies/{{company}}/webhooks/{hook}/logs").data

    until(lambda: rows() and rows()[0]["attempt_count"])
    return rows()[0]


def test_every_topic_stands_in_the_form_with_its_sentence(visitor: Visitor) -> None:
    seen = visitor.visit(f"{AT}/new")
    for topic, facts in TOPICS.items():
        assert f'name="topic" value="{topic}"' in seen.text
        assert facts.what.replace("`", "") in seen.words
    assert "What flagbacks are" in visitor.visit(AT).words
    assert seen.text.count("checked") == 0
    flagback = visitor.visit(f"{AT}/new?topics=flag.changed,nothing.such")
    assert re.findall(r'value="([^"]+)" checked', flagback.text) == ["flag.changed"]


def test_a_webhook_hears_what_was_ticked_as_narrow_as_it_was_asked(visitor: Visitor) -> None:
    assert "Nobody hears of anything yet." in visitor.visit(AT).words
    account = visitor.company.account()
    fields: dict[str, Any] = {
        **PLAIN,
        "url": "https://hooks.example.com/in",
        "description": HOSTILE,
        "username": "me",
        "password": "hush",
        "merge_balance_changes": "on",
        "topic": ["threshold", "balance_change", "payment.failed"],
        "kind:threshold": "remaining_percentage",
        "value:threshold": "20",
        "denomination:threshold": "tokens",
        "account_id:payment.failed": account,
    }
    seen = visitor.send(f"{AT}/new", **fields)
    secret = secret_of(seen)
    assert secret.startswith("whsec_")
    found = only(visitor)
    assert (found["username"], found["merge_balance_changes"]) == ("me", True)
    heard = {one["topic"]: one for one in found["topics"]}
    assert heard.keys() == {"threshold", "balance_change", "payment.failed"}
    assert (heard["threshold"]["remaining_percentage"], heard["threshold"]["denomination"]) == (20, "tokens")
    assert heard["payment.failed"]["account_id"] == account

    page = visitor.visit(f"{AT}/{found['id']}")
    assert "20 % left, less than" in page.words
    assert secret not in page.text
    assert "hush" not in page.text
    for text in (page.text, visitor.visit(AT).text):
        assert HOSTILE not in text
        assert "&lt;script&gt;{{7*7}}" in text


def test_what_was_typed_stays_where_the_api_refuses(visitor: Visitor) -> None:
    fields: dict[str, Any] = {
        **PLAIN,
        "url": "ftp://nowhere.example",
        "description": "Kept",
        "password": "hush",
        "username": "me",
        "topic": ["plan.changed"],
        "account_id:plan.changed": "a_unknown",
    }
    seen = visitor.send(f"{AT}/new", **fields)
    assert seen.status == 422
    assert seen.text.count('role="alert"') == 1
    assert 'value="Kept"' in seen.text
    assert 'value="plan.changed" checked' in seen.text
    assert 'value="a_unknown"' in seen.text
    assert "hush" not in seen.text
    assert listed(visitor) == []


def test_a_webhook_is_changed_paused_and_deleted(visitor: Visitor) -> None:
    at = made(visitor, url="https://hooks.example.com/in", username="me", password="hush", topic=["*"])
    changed: dict[str, Any] = {**PLAIN, "url": "https://hooks.example.com/other", "username": "", "max_in_flight": "7"}
    assert "Saved." in visitor.send(at, **changed).words
    found = only(visitor)
    assert (found["url"], found["username"], found["max_in_flight"]) == (changed["url"], None, 7)
    refused = visitor.send(at, **{**changed, "max_in_flight": "many"})
    assert refused.status == 422
    assert 'value="many"' in refused.text
    assert "Paused" in visitor.send(f"{at}/pause", paused="yes").words
    assert only(visitor)["status"] == "paused"
    assert "goes on" in visitor.send(f"{at}/pause", paused="no").words
    assert only(visitor)["status"] == "active"
    assert "is gone" in visitor.send(f"{at}/delete").words
    assert listed(visitor) == []


def test_topics_come_and_go_one_by_one(visitor: Visitor) -> None:
    at = made(visitor, topic=["invoice.paid"])
    level: dict[str, Any] = {"topic": "threshold", "kind": "threshold_percentage", "value": "75"}
    assert "It hears threshold from now on." in visitor.send(f"{at}/subscribe", **level).words
    assert "75 % consumed" in visitor.visit(at).words
    refused = visitor.send(f"{at}/subscribe", **{**level, "topic": "credit_limit"})
    assert refused.status == 422
    assert 'value="75"' in refused.text
    assert visitor.visit(f"{at}/subscribe").path == at, "the address of a refused form leads to the webhook"
    visitor.send(f"{at}/unsubscribe", topic="threshold", threshold_percentage="75")
    assert [one["topic"] for one in only(visitor)["topics"]] == ["invoice.paid"]


def test_a_secret_is_shown_once_and_changed(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/new", **PLAIN)
    before = secret_of(seen)
    at = f"{AT}/{only(visitor)['id']}"
    after = secret_of(visitor.send(f"{at}/rotate", overlap="2", overlap_unit="hours"))
    assert after != before
    page = visitor.visit(at)
    assert before not in page.text
    assert after not in page.text
    assert "the one before signs too until" in page.words


def test_the_log_shows_each_attempt_with_its_answer_and_sends_it_again(visitor: Visitor, receivers: Receivers) -> None:
    receiver = receivers.open(answer(200, b"<b>thanks</b>"))
    at = made(visitor, url=receiver.url)
    assert "A trial is on its way" in visitor.send(f"{at}/test", message="Hear " + HOSTILE).words
    hook = at.rpartition("/")[2]

    delivery = tried(visitor, hook)
    log = visitor.visit(f"{at}/logs")
    assert "webhook.test" in log.words
    assert f'href="{at}/logs/{delivery["id"]}"' in log.text
    assert "Nothing fits these filters." in visitor.visit(f"{at}/logs?status=merged").words
    assert "webhook.test" in visitor.visit(f"{at}/logs?format=csv").text
    one = visitor.visit(f"{at}/logs/{delivery['id']}")
    assert HOSTILE not in one.text
    assert HOSTILE in one.words.replace("  ", " ") or "{{7*7}}" in one.words
    assert "Attempt 1: 200 delivered" in one.words
    assert "&lt;b&gt;thanks&lt;/b&gt;" in one.text
    assert "on its way once more" in visitor.send(f"{at}/logs/{delivery['id']}/replay").words
    assert len({message.id for message in receiver.wait(2)}) == 1, "the same notification, twice"


@pytest.mark.asyncio
async def test_what_failed_is_sent_again_since_a_moment(
    visitor: Visitor, receivers: Receivers, calling_service: Server
) -> None:
    receiver = receivers.open(answer(500), answer(200))
    at = made(visitor, url=receiver.url)
    assert "Nothing has failed" in visitor.send(f"{at}/replay").words
    assert "takes a day and a time" in visitor.send(f"{at}/replay", since="soon", came_from=f"{at}/logs").words
    visitor.send(f"{at}/test")
    tried(visitor, at.rpartition("/")[2])
    # It would be tried again for days; here it has failed for good.
    rows = await asyncpg.connect(calling_service.dsn)
    try:
        await rows.execute("update delivery set status = 'failed', finished_at = now() where status = 'waiting'")
    finally:
        await rows.close()
    assert "Nothing has failed since then." in visitor.send(f"{at}/replay", since="2099-01-01T00:00").words
    assert "1 is on the way once more." in visitor.send(f"{at}/replay", since="2020-01-01T00:00").words
    assert len(receiver.wait(2)) == 2


def test_who_may_only_read_sees_webhooks_and_changes_none(visitor: Visitor) -> None:
    at = made(visitor, topic=["plan.started"])
    reader = colleague(visitor, "read_only")
    page = reader.visit(at)
    assert "plan.started" in page.words
    assert "Send a trial" not in page.words
    assert reader.visit(f"{AT}/new").status == 403
    assert "cannot do this" in reader.send(f"{at}/delete", came_from=at).words
    assert len(listed(visitor)) == 1


def test_a_webhook_of_another_company_is_not_there(visitor: Visitor, calling_service: Server) -> None:
    at = made(visitor)
    with Client(*calling_service.address) as client:
        other = Visitor.signed_up(client, calling_service.address, "Other")
        assert other.visit(at).status == 404
        assert other.visit(f"{at}/logs").status == 404
        other.send(f"{at}/delete", came_from=AT)
    assert len(listed(visitor)) == 1
