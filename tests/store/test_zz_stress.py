from __future__ import annotations
import random, os
import pytest
from datetime import timedelta
from tenuto.core.outcomes import Refusal
from tenuto.core.invoice import ManualLine
from tenuto.store import audit as A
from tenuto.store.database import AccountMovedOn, Contended
from tenuto.service import cards, invoicing, payments, refills, refunds
from tenuto.service.invoicing import TermsWanted
from tests.money_books import *
from tests.money_books import Money, TAXES, GOOD, REFUSED

class Boom(Exception): pass

@pytest.mark.parametrize("seed", range(int(os.environ.get("S0","0")), int(os.environ.get("S1","8"))))
async def test_stress(new_database, seed):
    dice = random.Random(seed)
    async with money_books(new_database(f"stress{seed}")) as m:
        ids = []
        for i in range(3):
            a = await m.account(dice.choice([GOOD, GOOD, REFUSED]), USD=2000, credits=50)
            async with m.unit() as unit:
                await invoicing.set_terms(m.engine, unit, m.company.environment, a, TermsWanted("USD", taxes=TAXES, collection=dice.choice(["send_invoice","charge_automatically"])))
            ids.append(a)
        env = m.company.environment
        async def rows(q, *a): return await m.company.rows(q, *a)
        async def pick(q, *a):
            r = await rows(q, *a)
            return dice.choice(r)[0] if r else None
        async def pay_of(a, where="true"):
            i = await pick(f"select id from payment where account_id=$1 and {where}", a)
            return i
        async def verb(name, a):
            u = m.unit
            if name == "deposit": await m.deposit(a, dice.choice(["USD"]), *( [dice.randint(60,900)]*2))
            elif name == "deposit_c": await m.deposit(a, "credits", dice.randint(1,50), dice.randint(60,900))
            elif name == "refund":
                i = await pay_of(a, "status='succeeded' and method<>'balance' and refunded<amount")
                if i:
                    async with u() as unit:
                        b = await refunds.begin_refund(m.engine, unit, env, a, i, amount=dice.choice([None,1,33]), reason="x", once=None)
                    await refunds.drive_refund(m.engine, env, a, b.id)
            elif name == "dispute":
                i = await pay_of(a, "status='succeeded' and method='card' and not exists (select from refund r where r.account_id=payment.account_id and r.payment_id=payment.id and r.status='intended')")
                if i:
                    async with m.engine.database.reading() as r:
                        from tenuto.store import payments as P
                        h = await P.read_payment(r, a, i)
                    await m.dispute(h.payment, dice.randint(1, h.payment.amount), is_won=dice.random()<.5)
            elif name == "refill": await m.refill(a, "credits", amount=dice.randint(1,80), charge_amount=dice.choice([0,100,333]), threshold=dice.randint(0,60))
            elif name == "refill_m": await m.refill(a, dice.choice(["credits","USD"]), amount=200, charge_amount=200, is_monthly=dice.random()<.8, threshold=dice.choice([5,None]))
            elif name == "refill_b": await m.refill(a, "tokens", amount=9, charge_amount=dice.choice([0,30]), is_monthly=True, source="balance", charge_denomination="USD")
            elif name == "end_refill":
                async with u() as unit: await refills.end_refill(m.engine, unit, env, a, dice.choice(["credits","USD"]))
            elif name == "resume_refill":
                async with u() as unit: await refills.resume_refill(m.engine, unit, env, a, "credits")
            elif name == "retry":
                i = await pay_of(a, "status in ('failed','skipped','created')")
                if i:
                    async with u() as unit: await payments.retry_payment(m.engine, unit, env, a, i)
                    await payments.drive(m.engine, env, a, i)
            elif name == "void_pay":
                i = await pay_of(a, "status in ('failed','skipped','created','confirming','intended')")
                if i:
                    async with u() as unit: await payments.void_payment(m.engine, unit, env, a, i)
            elif name == "suspend":
                async with u() as unit: await payments.suspend_capture(m.engine, unit, env, a)
            elif name == "resume":
                async with u() as unit: await payments.resume_capture(m.engine, unit, env, a, process=dice.random()<.6, limit=10)
            elif name == "card": await m.card(a, dice.choice([GOOD, REFUSED, "tok_mastercard", "tok_amex"]))
            elif name == "remove":
                i = await pick("select id from payment_method where account_id=$1 and removed_at is null", a)
                if i:
                    async with u() as unit: await cards.remove_card(m.engine, unit, env, a, i)
            elif name == "use":
                await m.company.send(a, event("chat", str(dice.randint(1,200))), event("read", str(dice.randint(1,40))), event("image", "3"))
            elif name == "sweep":
                await m.sweep(**dice.choice([{"seconds":1},{"minutes":2},{"hours":2},{"days":1},{"days":12}]))
                for w in (invoicing.cut_invoices, invoicing.finalize_invoices, invoicing.collect_invoices, invoicing.dun_invoices):
                    await w(m.engine, now=m.clock.at, limit=100)
            elif name == "cut":
                async with u() as unit: await invoicing.cut_invoice(m.engine, unit, env, a, currency="USD", manual=[ManualLine("x", 12)] if dice.random()<.4 else [])
            else:
                i = await pick("select id from invoice where account_id=$1 order by id desc limit 6", a)
                if not i: return
                if name == "inv_pay":
                    async with u() as unit: b = await invoicing.begin_payment(m.engine, unit, env, a, i)
                    await m.drive(b)
                elif name == "mark": await m.about(invoicing.mark_paid, a, i, reference="w")
                elif name == "credit": await m.about(invoicing.credit_invoice, a, i, amount=dice.randint(1,300), reason="r")
                elif name == "void": await m.about(invoicing.void_invoice, a, i)
                elif name == "give_up": await m.about(invoicing.give_up_invoice, a, i)
                elif name == "discard": await m.about(invoicing.discard_draft, a, i)
                elif name == "finalize": await m.about(invoicing.finalize_invoice, a, i)
        W = dict(deposit=4, deposit_c=4, refund=5, dispute=2, refill=4, refill_m=3, refill_b=2, end_refill=1, resume_refill=1, retry=3, void_pay=2, suspend=1, resume=2, card=2, remove=1, use=10, sweep=12, cut=4, inv_pay=3, mark=2, credit=3, void=1, give_up=1, discard=1, finalize=3)
        log = []
        for step in range(int(os.environ.get("N", "160"))):
            m.clock.forward(seconds=1)
            name = dice.choices(list(W), list(W.values()))[0]; a = dice.choice(ids)
            if dice.random() < .12:
                pass
                left = [dice.randint(1, 6)]
                def fault(point):
                    left[0] -= 1
                    if left[0] == 0: raise Boom(point)
                m.engine.faults = fault
            if dice.random() < .15:
                m.stripe.fault(dice.choice(["429","lock_timeout","500_before","500_after_effect","processing","decline","refund_pending"]), times=dice.randint(1,2))
            try:
                await verb(name, a)
                log.append((step, name, "ok"))
            except Refusal as r: log.append((step, name, r.code))
            except (Boom, Contended, AccountMovedOn, AssertionError) as e: log.append((step, name, repr(e)))
            finally: m.engine.faults = None
            if step % 8 == 0 or step > 150:
                async with m.engine.database.snapshot() as reader:
                    planned = await A.plan(reader)
                    found = [f async for o in A.outcomes(reader, planned) for f in o.findings]
                assert found == [], (log[-9:], found)
        import collections
        print(collections.Counter(x[2] for x in log))
        m.stripe.heal(); m.stripe.release()
        # settle everything, then ask the provider
        for _ in range(6):
            await m.sweep(minutes=3)
        from tenuto.service import gateway_audit as G
        mine, _l = await G.halves(m.engine)
        c = await G.compare(m.engine, mine)
        assert (c.problem, c.findings) == ("", ()), c
