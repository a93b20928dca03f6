"""The only stranger we call: a payment provider that speaks Stripe's HTTP.

Owns: what is asked of it (``port``), asking it through its official SDK at its documented pace (``stripe``, ``pace``,
``answers``), believing its messages (``messages``), and a simulator of it with a durable book and faults on demand
(``simulator`` and its parts), which the same code talks to in tests, the demo and sandbox companies. Does not own: any
decision about money, and any row of ours.

Always true: amounts at the port are minor units of ISO 4217; a call whose end nobody knows raises ``GatewayUnclear``
and is never repeated here; no secret is in an exception or a log.
"""
