from __future__ import annotations
from tests.client import Client, Company
from tests.hearing import Hearer

def blocked(c, a): 
    return c.call("GET", f"/v1/accounts/{a}").data["credit_blocked"]

def adjust(c, a, amount, d="USD"):
    r = c.call("POST", f"/v1/accounts/{a}/balance/{d}/adjust", {"amount": amount})
    assert r.status == 200, r.raw

def limit(c,a,n):
    r=c.call("PUT", f"/v1/accounts/{a}", {"credit_limit": n}); assert r.status==200, r.raw

def facts(c):
    return [(n["topic"], n["data"].get("name"), n["data"].get("enabled"), n["data"].get("amount"), n["data"].get("credit_limit_percentage")) for n in c.call("GET", "/v1/companies/{company}/notifications?limit=1000").data]

def test_renewal_block(client: Client):
    c = Hearer.begin(client)
    c.hook(None, "*")
    plan = c.plan(name="B", renewal_denomination="USD", renewals={"MONTHLY": {"amount": 500}}, balances={"tokens": {"amount": 10}})
    a = c.account(USD=0)
    limit(c,a,500)
    c.card(a)
    c.start(a, plan)
    adjust(c,a,-1000)
    assert blocked(c,a)
    adjust(c,a,200)
    assert blocked(c,a)
    print(c.balance(a,"USD"))
    import time; time.sleep(.5); before=len(facts(c))
    r=c.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 32*86400}); assert r.status==200, r.raw
    time.sleep(1)
    print(c.balance(a,"USD")["amount"]); print("blocked", blocked(c,a))
    for f in facts(c)[before:]: print(f)

def test_limit_raise(client):
    import time
    c = Hearer.begin(client); c.hook(None, "*")
    a=c.account(USD=0); limit(c,a,500); adjust(c,a,-800)
    time.sleep(.5); n=len(facts(c)); print([f for f in facts(c) if f[1]])
    limit(c,a,5000); print("up", c.flags(a)["over_credit_limit"])
    adjust(c,a,-1); adjust(c,a,1)
    time.sleep(.7); print(facts(c)[n:])

def test_levels_removed(client):
    c = Hearer.begin(client); c.hook(None,"*")
    r=c.call("PUT","/v1/companies/{company}",{"levels":[{"credit_limit_percentage":50,"action":"block"}]}); assert r.status==200,r.raw
    a=c.account(USD=0); limit(c,a,500); adjust(c,a,-300); print("blocked",blocked(c,a))
    r=c.call("PUT","/v1/companies/{company}",{"levels":[]}); assert r.status==200,r.raw
    print("blocked after rule is gone",blocked(c,a))

def test_refund_passing(client):
    # a metered flag on money
    import time
    c = Hearer.begin(client); c.hook(None,"*")
    a=c.account(USD=0); c.flag(a,"rich",{"metered":"USD"})
    c.card(a); c.deposit(a, 1000, 1000, "USD"); print(c.flags(a)["rich"], c.balance(a,"USD")["amount"])
    time.sleep(.7); print(facts(c))
