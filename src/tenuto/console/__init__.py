"""The console: pages for the people of a company.

Owns: who is signed in and may see what, forms and where they came from, how values, tables and charts are shown; its
templates and static files. Does not own: any rule, read or change of its own. It asks the API's routes in this process,
as the user who is signed in, through what ``api/app.py`` hands in.

Always true: a page can do nothing that the API cannot; a change comes from a form of the same origin with the session's
token, and has one effect however often it is sent; no page holds a script or a style.
"""
