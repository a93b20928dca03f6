"""The rules of billing, and nothing else.

Owns: amounts and their exact fractions, prices and how a quantity becomes an amount, the ledger, the decision about
usage, every refusal the engine can give. Does not own: SQL, HTTP, the clock, chance, logging; time, identifiers and
stored facts come in as arguments and decisions go out as values.

Always true: no float, no coroutine, no import from outside the standard library; a function given the same arguments
gives the same answer. The modules may import each other only in this order: money, period, outcomes, catalog, rating,
ledger, usage.
"""
