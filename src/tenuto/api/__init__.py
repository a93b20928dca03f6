"""HTTP: the door.

Owns: routes as one table, who is calling, what a body may look like, the shape of answers and errors, OpenAPI. With
``console``, the only folder that knows the web framework. Does not own: rules, SQL, units. Reads go straight to
``store``; changes go through the verbs of ``service``.

Always true: every error has the one shape of design 4; a refused request has written nothing and used no key; no
answer leaves before what it says is committed.
"""
