"""The verbs of billing.

Each verb reads what it needs, lets ``core`` decide once, writes everything in one unit. Owns the order of those steps,
the opening of units and the sweeps. Does not own: rules (``core``), SQL (``store``), HTTP (``api``).

Always true: one service never imports another; what two verbs share moves down into ``core`` or becomes a due row that
a sweep picks up.
"""
