"""The life of an account on plans: the notation of ``notation``, with verbs for plans, cards and the passing of time.

    2030-02-01 09:00  plan basic monthly 1000 USD tokens 1000
                      plan pro monthly 4000 USD tokens 5000
                      card visa
                      start basic                  -> charges 1000 USD, grants 1000 tokens
                      event USE cost 250 tokens    -> 250 tokens, 750 left
    2030-02-15 09:00  preview pro ariel            -> charges 3500 USD, gives back 500 USD, ends 750 tokens, […]
                      change pro ariel             -> charges 3500 USD, gives back 500 USD, ends 750 tokens, […]
                      plan?                        -> active, pro until 2030-03-15 09:00
    2030-04-01 09:00  paid                         -> plan_start 1000 USD | plan_change 3500 USD | plan_renewal 4000 USD

Before a line with a date everything that fell due since then happens, in order and each at its own moment, as the clock
route of a test company does it; and after each line what is due at once. ``asleep until DATE TIME``: time passes and
nothing happens, until ``sweep plans`` or the next date. A step is told by what it left behind in the ledger, and every
change is previewed just before: the two must say the same.

Plans     ``plan NAME monthly|yearly|once N D [yearly N] [BALANCE N [overage N [per M] D] [each N] [rollover]
          [refill N below N [for N]]]... [filled monthly] [trial N] [setup N] [minimum N] [cap N] [rollover]
          [price TYPE D N]`` (the same name again: a new version), ``archive NAME``
Scene     ``card NAME`` (a test card of Stripe's), ``bank declines [CODE] [N]`` (its next answers), ``bank says
          yes`` (to the card ``simulatorProcessing``), ``failed renewals past_due|pause|cancel``,
          ``usually SCHEME``, ``invoiced in D``, ``asleep until DATE TIME``
Verbs     ``start|change|preview [NAME] [SCHEME] [monthly|yearly|once] [N D]...``, ``start NAME when card``,
          ``cancel plan at end|now [prorated]``, ``preview cancel now prorated``, ``pause plan``, ``resume plan``,
          ``unschedule``, ``retry renewal|payment``, ``void renewal``, ``modify D N for N``, ``schedule D N for N``,
          ``refill D N for N monthly``, ``grant D N [until DATE TIME] [priority N]``, ``agree TERMS|nothing``,
          ``agree price TYPE D N``, ``suspend captures``, ``resume captures``, ``sweep plans``
Questions ``plan?``; ``grants D``; and of what is new since it was last asked: ``paid``, ``steps``, ``renewals`` (when
          periods began, where the company is), ``lines`` (of the last step), ``invoices``
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast
from zoneinfo import ZoneInfo

import msgspec

from tenuto.api.plan_input import PlanChange, PlanIn, changes_of, plan_of
from tenuto.core.grant import MANUAL_PRIORITY
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Payment
from tenuto.core.plan import SCHEMES, Cadence, Scheme
from tenuto.core.subscription import SOLD, Subscription
from tenuto.engine import Engine
from tenuto.service import cards, catalog, grants, invoicing, payments, plans, refills, refunds, renewals, subscriptions
from tenuto.service.subscriptions import Begun, Decided, ModifyAsk, PlanAsk
from tenuto.store import due
from tenuto.store import payments as payment_shelf
from tenuto.store import subscriptions as shelf
from tenuto.store.database import Unit
from tenuto.store.subscriptions import Moment
from tests.simulated import Simulated
from tests.stories.notation import Story

_Body = TypeVar("_Body")
LIMIT: Final = 500
ROUNDS_MAX: Final = 50
WAITS: Final = "waits for the bank"
CADENCES: Final[dict[str, Cadence]] = {"monthly": "MONTHLY", "yearly": "YEARLY", "once": "ONE_OFF"}
SWEEPS: Final[tuple[tuple[Callable[..., Awaitable[int]], tuple[due.Due, ...]], ...]] = (
    (grants.expire_grants, (due.GRANTS,)),
    (renewals.renew_due, (due.PLANS,)),
    (invoicing.cut_invoices, (due.INVOICES_TO_CUT,)),
    (invoicing.finalize_invoices, (due.INVOICES_TO_FINALIZE,)),
    (invoicing.collect_invoices, (due.INVOICES_TO_COLLECT,)),
    (refills.refill_due, (due.REFILLS_BY_DATE, due.REFILLS_BY_THRESHOLD)),
    (payments.collect_due, (due.PAYMENTS,)),
    (refunds.refund_due, (due.REFUNDS,)),
    (invoicing.dun_invoices, (due.INVOICES_TO_DUN,)),
)
_OPTIONS: Final = {"trial": "trial_days", "setup": "setup_fee", "minimum": "minimum_spend", "cap": "spend_cap"}
_STEPS: Final = """
select s.id, s.kind, s.for_at, s.period_id, s.lines, s.denomination,
    case s.kind when 'cancel' then s.charge else p.amount end as paid,
    coalesce((select json_agg(json_build_array(t.book, t.denomination, t.amount) order by t.id) from transaction t
        where t.account_id = s.account_id and t.cause_id = s.id), '[]')::text as moves
from subscription_step s left join payment p on p.account_id = s.account_id and p.id = s.payment_id
where s.account_id = $1 and s.id > $2 order by s.id
"""


class PlanStory(Story):
    """One company with one account, whose plans are paid through the simulator of Stripe."""

    def __init__(self, engine: Engine, stripe: Simulated) -> None:
        super().__init__(engine)
        self.stripe = stripe
        self.plans: dict[str, int] = {}
        self.cards_given = 0
        self.is_asleep = False
        self.told: dict[str, Any] = defaultdict(int)

    @property
    def key(self) -> str:
        """Under which the simulator keeps this company's book."""
        return self.engine.sandbox_key(self.company.environment)

    # --- time

    async def pass_until(self, at: datetime) -> None:  # type: ignore[explicit-override]
        """Let time pass, stopping wherever something is due."""
        self.is_asleep = False
        while True:
            await self.rest()
            async with self.engine.database.reading() as reader:
                earliest = await due.earliest_due(reader, self.company.environment.id, after=self.clock.at)
            if earliest is None or earliest >= at:
                break
            self.clock.at = earliest
        self.clock.at = at
        await self.rest()

    async def rest(self) -> None:  # type: ignore[explicit-override]
        """Do what is due at this moment, unless everybody sleeps."""
        half, now = self.company.environment.id, self.clock.at
        for _ in range(0 if self.is_asleep else ROUNDS_MAX):
            async with self.engine.database.reading() as reader:
                waiting = await due.count_due(reader, now=now, environment_id=half)
            if not any(waiting.values()):
                break
            done = 0
            for sweep, kinds in SWEEPS:
                if any(waiting[kind.place] for kind in kinds):
                    done += await sweep(self.engine, now=now, limit=LIMIT, environment_id=half)
            assert done, f"what is due at {now} is not done: {waiting}"
        else:
            assert self.is_asleep, f"there is always something due at {now}"

    async def do_asleep(self, words: list[str]) -> None:
        self.is_asleep = True
        self.clock.at = _moment(words[1], words[2])

    async def do_sweep(self, words: list[str]) -> str:  # type: ignore[explicit-override]
        if words != ["plans"]:
            return await super().do_sweep(words)
        last = await self._last_step()
        self.is_asleep = False
        await self.rest()
        rows = await self.company.rows(_STEPS, self.account_id, last)
        return f"{sum(row['kind'] == 'renewal' for row in rows)} renewed"

    # --- the scene

    async def do_plan(self, words: list[str]) -> str | None:
        if not words:
            return await self._standing()
        name, *rest = words
        given = {"name": name, **terms_of(rest, is_whole=True)}
        engine, environment = self.engine, self.company.environment
        async with engine.database.writing() as unit:
            if name in self.plans:
                changes = changes_of(_in(given, PlanChange))
                await plans.change_plan_terms(engine, unit, environment, self.plans[name], changes)
            else:
                terms = plan_of(_in(given, PlanIn))
                self.plans[name] = (await plans.publish_plan(engine, unit, environment, name, terms)).id
        await self.company.look()
        return None

    async def do_archive(self, words: list[str]) -> None:
        async with self.engine.database.writing() as unit:
            await plans.archive_plan(self.engine, unit, self.company.environment, self.plans[words[0]])
        await self.company.look()

    async def do_card(self, words: list[str]) -> None:
        engine, environment, key = self.engine, self.company.environment, f"card:{self.account_id}:{self.cards_given}"
        self.cards_given += 1
        given = await cards.give_card(engine, environment, self.account_id, f"pm_card_{words[0]}", key)
        await cards.keep_given(engine, environment, self.account_id, given)

    async def do_bank(self, words: list[str]) -> None:
        if words == ["says", "yes"]:
            await asyncio.to_thread(self.stripe.release)
            return
        times = [int(word) for word in words if word.isdigit()]
        code = next((word for word in words[1:] if not word.isdigit()), "generic_decline")
        fault = {"times": times[0] if times else 1, "key": self.key, "code": code}
        await asyncio.to_thread(self.stripe.fault, "decline", **fault)

    async def do_failed(self, words: list[str]) -> None:
        await self.company.set_up(money={"plans": {"failed_renewal": words[1], "scheme": "sleeping_beauty"}})

    async def do_usually(self, words: list[str]) -> None:
        await self.company.set_up(money={"plans": {"failed_renewal": "past_due", "scheme": words[0]}})

    async def do_invoiced(self, words: list[str]) -> None:
        async with self.engine.database.writing() as unit:
            wanted = invoicing.TermsWanted(words[1])
            await invoicing.set_terms(self.engine, unit, self.company.environment, self.account_id, wanted)

    async def do_suspend(self, _: list[str]) -> None:
        async with self.engine.database.writing() as unit:
            await payments.suspend_capture(self.engine, unit, self.company.environment, self.account_id)

    # --- verbs

    def _ask(self, words: Sequence[str]) -> PlanAsk:
        """What is asked for: a plan, a scheme, a cadence, and how many of what."""
        rest, plan_id, units = list(words), None, dict[str, int]()
        scheme: Scheme | None = None
        cadence: Cadence | None = None
        while rest:
            word = rest.pop(0)
            if word in SCHEMES:
                scheme = cast("Scheme", word)
            elif word in CADENCES:
                cadence = CADENCES[word]
            elif word.isdigit():
                units[rest.pop(0)] = int(word)
            else:
                plan_id = self.plans[word]
        return PlanAsk(plan_id, cadence, units or None, scheme)

    async def do_start(self, words: list[str]) -> str:
        if words[1:] == ["when", "card"]:
            async with self.engine.database.writing() as unit:
                ask = self._ask(words[:1])
                await subscriptions.wait_for_card(self.engine, unit, self.company.environment, self.account_id, ask)
            return await self._standing()
        return await self.do_change(words)

    async def do_change(self, words: list[str]) -> str:
        ask = self._ask(words)
        engine, environment = self.engine, self.company.environment

        async def begin(unit: Unit) -> Begun:
            return await subscriptions.change_plan(engine, unit, environment, self.account_id, ask, None)

        return await self._done(begin, lambda: self.do_preview(words))

    async def do_preview(self, words: list[str]) -> str:
        engine, environment = self.engine, self.company.environment
        if words[0] == "cancel":
            decide = subscriptions.cancelling(at_end=False, prorates="prorated" in words)
            return previewed(await subscriptions.preview_step(engine, environment, self.account_id, decide))
        if words[0] == "modify":
            return await self._preview_modified(_modified(words[1:]))
        return previewed(await subscriptions.preview_change(engine, environment, self.account_id, self._ask(words)))

    async def _done(self, begin: Callable[[Unit], Awaitable[Begun]], preview: Callable[[], Awaitable[str]]) -> str:
        """Begin a step, drive its payment, and tell what it left behind, which is what was previewed."""
        expected, last = await _answer(preview), await self._last_step()
        found = await _answer(lambda: self._begun(begin, last))
        assert found in {expected, "refused payment_failed", WAITS}, f"previewed: {expected}, done: {found}"
        return found

    async def _begun(self, begin: Callable[[Unit], Awaitable[Begun]], last: int) -> str:
        async with self.engine.database.writing() as unit:
            begun = await begin(unit)
        if begun.payment is not None and not await self._drive(begun.payment):
            return WAITS
        rows = await self.company.rows(_STEPS, self.account_id, last)
        assert len(rows) <= 1, "one verb is one step"
        return stepped(rows[0]) if rows else "nothing now"

    async def _drive(self, payment: Payment) -> bool:
        """Have a payment paid; False where the bank takes its time."""
        environment = self.company.environment
        driven = await payments.drive(self.engine, environment, self.account_id, payment.id, fence=payment.fence)
        if driven.status not in {"succeeded", "processing"}:
            raise Refusal("payment_failed")
        return not driven.is_open

    async def _simply(self, decide: subscriptions.Decide, preview: Callable[[], Awaitable[str]] | None = None) -> str:
        engine, environment = self.engine, self.company.environment

        async def begin(unit: Unit) -> Begun:
            return await subscriptions.begin_step(engine, unit, environment, self.account_id, decide)

        if preview is not None:
            return await self._done(begin, preview)
        async with engine.database.writing() as unit:
            await begin(unit)
        return await self._standing()

    async def do_cancel(self, words: list[str]) -> str:  # type: ignore[explicit-override]
        if words[0] != "plan":
            return await super().do_cancel(words)
        is_now = words[1] == "now"
        decide = subscriptions.cancelling(at_end=not is_now, prorates="prorated" in words)
        return await self._simply(decide, (lambda: self.do_preview(["cancel", *words[1:]])) if is_now else None)

    async def do_pause(self, _: list[str]) -> str:
        return await self._simply(subscriptions.PAUSING)

    async def do_resume(self, words: list[str]) -> str:
        if words == ["plan"]:
            return await self._simply(subscriptions.RESUMING)
        async with self.engine.database.writing() as unit:
            made = await payments.resume_capture(
                self.engine, unit, self.company.environment, self.account_id, process=True, limit=LIMIT
            )
        return f"{len(made)} taken up"

    async def do_unschedule(self, _: list[str]) -> str:
        return await self._simply(subscriptions.REINSTATING)

    async def do_retry(self, words: list[str]) -> str:
        engine, environment = self.engine, self.company.environment
        async with engine.database.writing() as unit:
            if words == ["payment"]:
                (last,) = await unit.fetch("select max(id) as id from payment where account_id = $1", self.account_id)
                await payments.retry_payment(engine, unit, environment, self.account_id, last["id"])
            else:
                await renewals.renew_now(engine, unit, environment, self.account_id)
        await self.rest()
        return await self._standing()

    async def do_void(self, _: list[str]) -> str:
        async with self.engine.database.writing() as unit:
            known = await shelf.read_subscription(unit, self.account_id)
            assert known is not None
            assert known.payment_id is not None
            await payments.void_payment(self.engine, unit, self.company.environment, self.account_id, known.payment_id)
        await self.rest()
        return await self._standing()

    async def do_agree(self, words: list[str]) -> str:
        engine, environment = self.engine, self.company.environment
        async with engine.database.writing() as unit:
            if words[0] == "price":
                terms = {"amount": words[3]}
                await catalog.agree_event_price(
                    *(engine, unit, environment, self.account_id),
                    kind=words[1],
                    denomination=words[2],
                    match={},
                    terms=terms,
                )
            else:
                given = {} if words == ["nothing"] else terms_of(words, is_whole=False)
                changes = changes_of(_in(given, PlanChange))
                await subscriptions.agree_terms(engine, unit, environment, self.account_id, changes)
        return await self._standing()

    async def do_grant(self, words: list[str]) -> str:
        rest, until, priority = words[2:], None, MANUAL_PRIORITY
        while rest:
            if rest.pop(0) == "until":
                until = _moment(rest.pop(0), rest.pop(0))
            else:
                priority = int(rest.pop(0))
        ask = grants.GrantAsk(words[0], int(words[1]), priority, until, 0, "USD", "given by hand")
        async with self.engine.database.writing() as unit:
            await grants.give(self.engine, unit, self.company.environment, self.account_id, ask)
        return f"{await self.do_balance(words)} left"

    # --- amounts that are modified, with a plan or without

    async def do_refill(self, words: list[str]) -> str:
        engine, environment, denomination = self.engine, self.company.environment, words[0]
        changes = {"amount": int(words[1]), "charge_amount": int(words[3]), "is_monthly": True}

        async def begin(unit: Unit) -> Payment:
            found = await refills.set_refill(engine, unit, environment, self.account_id, denomination, changes)
            assert found.starts is not None
            ask = payments.Deposit(denomination, int(words[1]), int(words[3]), "USD")
            return await payments.begin_deposit(
                engine, unit, environment, self.account_id, ask, None, starts=found.starts
            )

        return await self._refilled(begin)

    async def do_modify(self, words: list[str]) -> str:
        ask = _modified(words)
        engine, environment = self.engine, self.company.environment
        if not await self._is_planned(ask):
            return await self._modified_refill(ask)

        async def begin(unit: Unit) -> Begun:
            kept = await subscriptions.modified_offer(engine, unit, environment, self.account_id, ask, keeps=True)
            assert kept is not None
            decide = subscriptions.modifying(kept, ask)
            return await subscriptions.begin_step(engine, unit, environment, self.account_id, decide)

        return await self._done(begin, lambda: self._preview_modified(ask))

    async def _modified_refill(self, ask: ModifyAsk) -> str:
        """As the route does it for a balance that no plan fills."""
        engine, environment = self.engine, self.company.environment

        async def begin(unit: Unit) -> Payment | None:
            change = await refills.modified(
                unit, environment, self.account_id, ask.denomination, ask.amount, ask.charge
            )
            if not change.charge:
                await refills.modify_at_once(engine, unit, environment, self.account_id, change)
                return None
            wanted = payments.Deposit(ask.denomination, ask.amount, change.charge, "USD")
            return await payments.begin_deposit(
                *(engine, unit, environment, self.account_id, wanted, None),
                starts=change.refill,
                cancels=change.cancels,
            )

        expected = await self._preview_modified(ask)
        found = await self._refilled(begin)
        assert found == expected, f"previewed: {expected}, done: {found}"
        return found

    async def _refilled(self, begin: Callable[[Unit], Awaitable[Payment | None]]) -> str:
        """Begin a refill, drive its payment, and tell what it left behind."""
        (before,) = await self.company.rows("select tick from account where id = $1", self.account_id)
        async with self.engine.database.writing() as unit:
            payment = await begin(unit)
        if payment is not None and not await self._drive(payment):
            return WAITS
        rows = await self.company.rows(
            "select book, denomination, amount from transaction where account_id = $1 and id > $2 order by id",
            *(self.account_id, before["tick"]),
        )
        return _effect(0 if payment is None else payment.amount, "USD", [tuple(row) for row in rows])

    async def _is_planned(self, ask: ModifyAsk) -> bool:
        async with self.engine.database.reading() as reader:
            offer = await subscriptions.modified_offer(
                self.engine, reader, self.company.environment, self.account_id, ask, keeps=False
            )
        return offer is not None

    async def _preview_modified(self, ask: ModifyAsk) -> str:
        engine, environment, account_id = self.engine, self.company.environment, self.account_id
        async with engine.database.reading() as reader:
            offer = await subscriptions.modified_offer(engine, reader, environment, account_id, ask, keeps=False)
            if offer is None:
                change = await refills.modified(
                    reader, environment, account_id, ask.denomination, ask.amount, ask.charge
                )
                moves = [("expiry", ask.denomination, -change.cancels), ("grant", ask.denomination, ask.amount)]
                return _effect(change.charge, "USD", [*moves, ("proration", "USD", change.remainder)])
        decide = subscriptions.modifying(offer, ask)
        return previewed(await subscriptions.preview_step(engine, environment, account_id, decide))

    async def do_schedule(self, words: list[str]) -> str:
        async with self.engine.database.writing() as unit:
            ask = _modified(words)
            step = await subscriptions.schedule_amount(
                self.engine, unit, self.company.environment, self.account_id, ask
            )
        assert step is not None
        return await self._standing()

    # --- questions

    async def _standing(self) -> str:
        async with self.engine.database.reading() as reader:
            found = await shelf.read_subscription(reader, self.account_id)
        if found is None:
            return "none"
        name = await self._named(found.plan_id, found.version_id)
        if found.ended_at is not None:
            return f"cancelled, {name} until {self._spelled(found.ended_at)}"
        parts = [found.status, f"{name}{'' if found.cadence == 'MONTHLY' else ' ' + _cadence(found.cadence)}"]
        if found.period_end is not None:
            parts[1] += f" until {self._spelled(found.period_end)}"
        parts += [f"{units} {what}" for what, units in sorted(found.variable_units.items())]
        parts += await self._coming(found)
        return ", ".join(parts)

    async def _coming(self, found: Subscription) -> list[str]:
        """What is going to happen to a plan, and what was agreed about it."""
        parts = []
        if found.refill_at is not None:
            parts.append(f"filled {self._spelled(found.refill_at)}")
        if found.scheduled:
            later = found.scheduled
            units = "".join(f" {count} {what}" for what, count in sorted(later["variable_units"].items()))
            cadence = "" if later["cadence"] == found.cadence else f" {_cadence(later['cadence'])}"
            parts.append(f"then {await self._named(later['plan_id'], later['version_id'])}{cadence}{units}")
            if later["override_id"] is not None:
                parts[-1] += " as agreed"
        if found.cancels_at_end:
            parts.append("then ends")
        if found.override_id is not None:
            parts.append("agreed")
        return parts

    async def _named(self, plan_id: int, version_id: int) -> str:
        (row,) = await self.company.rows("select number from plan_version where id = $1", version_id)
        name = next(known for known, id in self.plans.items() if id == plan_id)
        return name if row["number"] == 1 else f"{name} v{row['number']}"

    def _spelled(self, at: datetime) -> str:
        zone = self.company.environment.zone_name
        text = _minutes(at.astimezone(UTC))
        if zone == "UTC":
            return text
        return f"{text} ({at.astimezone(ZoneInfo(zone)):%H:%M} there)"

    async def do_grants(self, words: list[str]) -> str:
        (row,) = await self.company.rows("select tick from account where id = $1", self.account_id)
        async with self.engine.database.reading() as reader:
            found = await shelf.read_standing(reader, self.account_id, Moment(self.clock.at, row["tick"]))
        purse = found.purses[words[0]]
        told = [
            f"{grant.source} {grant.left} of {grant.units}"
            + ("" if grant.expires_at is None else f" until {self._spelled(grant.expires_at)}")
            for grant in purse.grants
        ]
        return " | ".join(told) or "none"

    async def do_paid(self, _: list[str]) -> str:
        rows = await self.company.rows("select * from payment where account_id = $1 order by id", self.account_id)
        told = []
        for payment in map(payment_shelf.payment_of, rows):
            text = f"{payment.reason} {payment.amount} {payment.currency}{self._state(payment)}"
            if self.told[f"paid {payment.id}"] != text:
                told.append(text)
            self.told[f"paid {payment.id}"] = text
        return " | ".join(told) or "nothing"

    def _state(self, payment: Payment) -> str:
        if payment.status == "succeeded":
            return ""
        if payment.is_open and payment.declines and payment.next_attempt_at is not None:
            return f" declined, again {self._spelled(payment.next_attempt_at)}"
        return f" {payment.status}" + (f" ({payment.code})" if payment.code else "")

    async def do_steps(self, _: list[str]) -> str:
        rows = await self.company.rows(_STEPS, self.account_id, self.told["steps"])
        if rows:
            self.told["steps"] = rows[-1]["id"]
        return " | ".join(f"{row['kind']} {self._spelled(row['for_at'])}: {stepped(row)}" for row in rows) or "none"

    async def do_renewals(self, _: list[str]) -> str:
        """When periods began, in the company's zone: the dates, with the time where it is not that of the first."""
        rows = await self.company.rows(_STEPS, self.account_id, self.told["renewals"])
        zone = ZoneInfo(self.company.environment.zone_name)
        begun = [row["for_at"].astimezone(zone) for row in rows if row["kind"] in {"start", "renewal"}]
        if not begun:
            return "none"
        self.told["renewals"] = rows[-1]["id"]
        usual = begun[0].time()
        told = [f"{at:%Y-%m-%d}" + ("" if at.time() == usual else f" {at:%H:%M}") for at in begun]
        return f"at {usual:%H:%M}: {', '.join(told)}"

    async def do_lines(self, _: list[str]) -> str:
        rows = await self.company.rows(_STEPS, self.account_id, await self._last_step() - 1)
        told = []
        for line in msgspec.json.decode(rows[-1]["lines"]):
            each = "" if line["unit"] is None else f" {line['quantity']} x {line['unit']} ="
            named = line["description"] if line["kind"] in {"plan", "variable"} else line["kind"]
            told.append(f"{named}{each} {line['amount']} {line['denomination']}")
        return " | ".join(told) or "none"

    async def do_invoices(self, _: list[str]) -> str:
        rows = await self.company.rows(
            "select status, currency, amount_due, amount_paid from invoice where account_id = $1 order by id",
            self.account_id,
        )
        told = [f"{row['status']} {row['amount_due']} {row['currency']}, {row['amount_paid']} paid" for row in rows]
        return " | ".join(told) or "none"

    async def _last_step(self) -> int:
        (row,) = await self.company.rows(
            "select coalesce(max(id), 0) as id from subscription_step where account_id = $1", self.account_id
        )
        return int(row["id"])

    # --- what must be true of every life

    async def disagreements(self) -> list[str]:
        """Where periods overlap, grants exceed their balance, or the simulator charged what was not paid here."""
        periods = await self.company.rows(
            "select start_at, ended_at, lead(start_at) over (order by start_at, id) as next from subscription_period"
            " where account_id = $1",
            self.account_id,
        )
        found = [
            f"a period from {row['start_at']} to {row['ended_at']}, and the next from {row['next']}"
            for row in periods
            if row["next"] is not None and (row["ended_at"] is None or row["ended_at"] > row["next"])
        ]
        rows = await self.company.rows(
            "select g.denomination, sum(g.units_left) as left,"
            " greatest(b.amount, 0) + b.arrived - b.amount - b.burned as there"
            " from balance_grant g join balance b using (account_id, denomination)"
            " where g.account_id = $1 and g.closed_at is null"
            " group by g.denomination, b.amount, b.arrived, b.burned",
            self.account_id,
        )
        found += [f"grants of more than is there: {dict(row)}" for row in rows if row["left"] > row["there"]]
        paid = await self.company.rows(
            "select amount from payment where account_id = $1 and status = 'succeeded' and method = 'card'",
            self.account_id,
        )
        book = await asyncio.to_thread(self.stripe.book, self.key)
        charged = sorted(charge["amount"] for charge in book["charges"] if charge["status"] == "succeeded")
        if charged != sorted(row["amount"] for row in paid):
            found.append(f"the simulator charged {charged}")
        return found


# --- reading and telling ----------------------------------------------------------------------------------------------


def terms_of(words: Sequence[str], *, is_whole: bool) -> dict[str, Any]:
    """Terms of a plan in the contract's shape; ``is_whole``: the first price says what it is in."""
    rest = list(words)
    terms: dict[str, Any] = {}
    balances: dict[str, Any] = {}
    name = ""
    while rest:
        word = rest.pop(0)
        if word in CADENCES:
            terms.setdefault("renewals", {})[word] = {"amount": int(rest.pop(0))}
            if is_whole and "renewal_denomination" not in terms:
                terms["renewal_denomination"] = rest.pop(0)
        elif word in _OPTIONS:
            terms[_OPTIONS[word]] = int(rest.pop(0))
        elif word == "filled":
            terms["refill_cadence"] = rest.pop(0)
        elif word == "price":
            price = {"type": rest.pop(0), "denomination": rest.pop(0), "amount": rest.pop(0)}
            terms.setdefault("event_prices", []).append(price)
        elif word == "rollover" and not name:
            terms["rollover"] = True
        elif word in _MODIFIERS:
            balances[name].update(_MODIFIERS[word](rest))
        else:
            name, balances[word] = word, {"amount": int(rest.pop(0))}
    if is_whole or balances:
        terms["balances"] = balances
    return terms


def _in(given: object, kind: type[_Body]) -> _Body:
    """As it would come in a body."""
    return msgspec.json.decode(msgspec.json.encode(given), type=kind)


def _overage(rest: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"overage_charge_amount": rest.pop(0)}
    if rest[0] == "per":
        found["overage_charge_per"] = int(rest[1])
        del rest[:2]
    return {**found, "overage_charge_denomination": rest.pop(0)}


def _refill(rest: list[str]) -> dict[str, Any]:
    found = {"auto_refill_amount": int(rest[0]), "auto_refill_threshold": int(rest[2])}
    del rest[:3]
    if rest[:1] == ["for"]:
        found["auto_refill_charge_amount"] = int(rest[1])
        del rest[:2]
    return found


_MODIFIERS: Final[dict[str, Callable[[list[str]], dict[str, Any]]]] = {
    "overage": _overage,
    "each": lambda rest: {"variable_amount_cost": int(rest.pop(0))},
    "rollover": lambda _: {"rollover": True},
    "refill": _refill,
}


def _modified(words: Sequence[str]) -> ModifyAsk:
    return ModifyAsk(words[0], int(words[1]), int(words[3]))


def previewed(decided: Decided) -> str:
    """What a preview says, in the words in which the step is told once it is done."""
    step = decided.step
    moves = [("plan", line.denomination, -line.amount) for line in step.lines if line.kind in SOLD]
    moves += [("proration", step.closes.denomination if step.closes else step.denomination, step.credit)]
    moves += [("expiry", name, -units) for name, units in step.cancelled.items()]
    moves += [("grant", name, units) for name, units in step.granted.items()]
    return _effect(step.charge if decided.way == "card" else 0, step.denomination, moves)


def stepped(row: Any) -> str:
    """What a step left behind in the ledger, and what the card was charged for it."""
    return _effect(row["paid"] or 0, row["denomination"], msgspec.json.decode(row["moves"]))


def _effect(charged: int, currency: str, moves: Sequence[Sequence[Any]]) -> str:
    """``posts``: what is sold and paid by no card now; what a card paid is told by the charge."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for book, denomination, amount in moves:
        sums["grant" if book == "refill" else book, denomination] += amount
    parts = [f"charges {charged} {currency}"] if charged else []
    for book, verb in (("plan", "posts"), ("proration", "gives back"), ("expiry", "ends"), ("grant", "grants")):
        for (of, denomination), amount in sorted(sums.items()):
            if of == book and amount and not (book == "plan" and charged):
                parts.append(f"{verb} {abs(amount)} {denomination}")
    return ", ".join(parts) or "nothing now"


async def _answer(ask: Callable[[], Awaitable[str]]) -> str:
    try:
        return await ask()
    except Refusal as refusal:
        return f"refused {refusal.code}"


def _cadence(cadence: str) -> str:
    return {"MONTHLY": "monthly", "YEARLY": "yearly", "ONE_OFF": "once"}[cadence]


def _moment(day: str, time: str) -> datetime:
    return datetime.fromisoformat(f"{day} {time}").replace(tzinfo=UTC)


def _minutes(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
