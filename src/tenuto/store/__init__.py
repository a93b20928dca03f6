"""PostgreSQL, and every SQL statement of the system.

Owns: the schema and its migrations, the pool, units (one unit is one database transaction), and the translation
between rows and the values of ``core``. Does not own: any decision. What is read here is handed to ``core`` whole, what
is written here was decided there.

Always true: reading connections are read-only to PostgreSQL itself; ``writing()`` is opened by ``service`` only;
``account_id`` comes first in every key of an account-level table, so that the schema can be spread over several nodes.
"""
