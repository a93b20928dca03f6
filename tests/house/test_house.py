"""The rules of the house, as programs: layers, purity, words, sizes, and that what exists is documented.

The tables are in ``rules.toml``. A rule that fails says what to do; a list of exceptions may shrink and never grow.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tenuto.api.app import ROUTES, STATUSES
from tenuto.core.outcomes import REFUSALS
from tenuto.core.topic import TOPICS
from tenuto.engine import Settings

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "src" / "tenuto"
DOCS: Final = ROOT / "docs"
RULES: Final[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "rules.toml").read_text())
SOURCES: Final = sorted(PACKAGE.rglob("*.py"))
CORE: Final = sorted((PACKAGE / "core").glob("*.py"))
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))
PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


class Import(NamedTuple):
    """One module that a file imports, by its full name, and where."""

    module: str
    line: int


def name_of(path: Path) -> str:
    """A file as the rules name it: below the package, or below the repository."""
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Everything a file imports, relative names resolved, ``from package import module`` as the module."""
    found: list[Import] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                package = ["tenuto", *path.relative_to(PACKAGE).parts[: -node.level]]
                start = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                below = PACKAGE.joinpath(*start.split(".")[1:], alias.name)
                is_module = start.startswith("tenuto") and (below.is_dir() or below.with_suffix(".py").is_file())
                found.append(Import(f"{start}.{alias.name}" if is_module else start, node.lineno))
    return tuple(found)


def layer_of(path: Path) -> dict[str, Any]:
    for layer in RULES["layer"]:
        name = name_of(path)
        if any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in layer["files"]):
            return dict(layer)
    pytest.fail(f"{name_of(path)} belongs to no layer: give it a place in tests/house/rules.toml.")


def is_below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_layer_imports_only_what_lies_below_it(path: Path) -> None:
    layer = layer_of(path)
    wrong: list[str] = []
    for module, line in imports_of(path):
        top = module.partition(".")[0]
        if module == "tenuto":
            continue
        if top == "tenuto":
            allowed = any(is_below(module, prefix) for prefix in layer["ours"])
        else:
            allowed = top in sys.stdlib_module_names or top in layer["others"]
        if not allowed:
            wrong.append(f"{name_of(path)}:{line} imports {module}, which the layer {layer['name']} may not")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((PACKAGE / "service").glob("*.py")), ids=name_of)
def test_a_service_imports_no_sibling(path: Path) -> None:
    wrong = [found for found in imports_of(path) if is_below(found.module, "tenuto.service")]
    assert not wrong, f"{name_of(path)} imports {wrong}: what two services share moves down into core or store."


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_is_in_order(path: Path) -> None:
    order: list[str] = RULES["core"]["order"]
    if path.stem == "__init__":
        assert not imports_of(path), "core/__init__.py holds the page of its room and nothing else."
        return
    assert path.stem in order, f"core/{path.name} has no place in core.order of tests/house/rules.toml."
    earlier = order[: order.index(path.stem)]
    for module, line in imports_of(path):
        if is_below(module, "tenuto"):
            assert module.removeprefix("tenuto.core.") in earlier, (
                f"core/{path.name}:{line} imports {module}, which does not come before it: {', '.join(order)}."
            )
        else:
            allowed = RULES["core"]["standard_library"]
            assert module.partition(".")[0] in allowed, f"core/{path.name}:{line} imports {module}: {allowed} only."


def test_the_web_framework_stays_at_the_door() -> None:
    wrong = [
        f"{name_of(path)}:{found.line}"
        for path in SOURCES
        if path.parent.name not in {"api", "console"}
        for found in imports_of(path)
        if is_below(found.module, "litestar")
    ]
    assert not wrong, f"Only api/ and console/ know the web framework: {wrong}"


def test_units_are_opened_in_service_only() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if path.parent.name != "service"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "writing"
    ]
    assert not wrong, f"writing() may be called in service/ only; make a verb there for {wrong}."


def test_the_environment_is_read_in_one_place() -> None:
    """Settings are read by the engine; who starts processes hands its own environment on to them."""
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if name_of(path) not in RULES["environment"]["files"]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    assert not wrong, f"Read settings through engine.read_settings, not at {wrong}."


# --- SQL -------------------------------------------------------------------------------------------------------------

SQL: Final = re.compile(
    r"^\s*(with\s+\w+\s+as\s*\(|select\s)|\b(insert\s+into\s+\w|delete\s+from\s+\w|update\s+\w+\s+set\s"
    r"|(create|alter|drop|truncate)\s+(table|index|database|function|role)\s|for\s+(no\s+key\s+)?update\b)",
    re.IGNORECASE,
)


def texts_of(path: Path) -> Iterator[ast.Constant]:
    """The string literals of a file that are not docstrings."""
    prose = {
        id(node.value)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node


def test_sql_stands_in_the_store() -> None:
    elsewhere: dict[str, int] = RULES["sql"]["elsewhere"]
    for path in SOURCES:
        name = name_of(path)
        if any(fnmatch(name, pattern) for pattern in RULES["sql"]["files"]):
            continue
        lines = [node.lineno for node in texts_of(path) if SQL.search(str(node.value))]
        allowed = elsewhere.get(name, 0)
        assert len(lines) <= allowed, f"{name} holds SQL at lines {lines}: give it a function in store/."
        assert len(lines) == allowed, (
            f"{name} holds less SQL than sql.elsewhere says: lower its number to {len(lines)}."
        )


# --- the core is pure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_waits_for_nothing(path: Path) -> None:
    waits = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    lines = [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, waits)]
    assert not lines, f"{name_of(path)} holds async at lines {lines}: the core is called, it never waits."


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_has_no_binary_fractions(path: Path) -> None:
    literals, names, roundings = [], [], []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            literals.append(node.lineno)
        elif isinstance(node, ast.Name) and node.id == "float":
            names.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "round":
            roundings.append(node.lineno)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            literals.append(node.lineno)
    assert not literals, f"{name_of(path)} has float literals or true division at lines {literals}: use Exact."
    assert not roundings, f"{name_of(path)} rounds at lines {roundings}: use money.round_up or money.split_whole."
    allowed = RULES["core"]["float_names"].get(name_of(path), 0)
    assert len(names) == allowed, f"{name_of(path)} names float at lines {names}; rules.toml allows {allowed}."


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_asks_no_clock(path: Path) -> None:
    asked = {"now", "utcnow", "today", "monotonic", "perf_counter", "uuid4", "uuid7"}
    lines = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in asked)
            or (isinstance(node.func, ast.Name) and node.func.id in asked)
        )
    ]
    assert not lines, f"{name_of(path)} asks for time or chance at lines {lines}: it comes in as an argument."


# --- words and sizes -------------------------------------------------------------------------------------------------


def words_of(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_names_say_something(path: Path) -> None:
    banned = set(RULES["words"]["banned"])
    named = [(path.stem, 1)] + [
        (node.name, node.lineno) for node in ast.walk(tree_of(path)) if isinstance(node, (*FUNCTION, ast.ClassDef))
    ]
    wrong = [f"{name_of(path)}:{line} {name}" for name, line in named if words_of(name) & banned]
    assert not wrong, f"Names that say nothing ({', '.join(sorted(banned))}): {wrong}"


def test_files_can_be_read_in_one_sitting() -> None:
    most: int = RULES["sizes"]["file_lines_max"]
    exceptions: dict[str, int] = RULES["sizes"]["long_files"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in [*SOURCES, *TESTS]}
    tables: list[str] = RULES["sizes"]["case_tables"]
    long = {name: lines for name, lines in lengths.items() if name not in tables and lines > exceptions.get(name, most)}
    assert not long, (
        f"Longer than {most} lines, or longer than the exception allows: {long}. Split by what it is about."
    )
    stale = [name for name in exceptions if lengths.get(name, 0) <= most]
    assert not stale, f"No longer exceptions, take them off the list: {stale}"


def test_functions_fit_on_a_page() -> None:
    exceptions: dict[str, int] = RULES["sizes"]["long_functions"]
    most: int = RULES["sizes"]["function_lines_max"]
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in [*SOURCES, *TESTS]
        for node in ast.walk(tree_of(path))
        if isinstance(node, FUNCTION) and (node.end_lineno or node.lineno) - node.lineno + 1 > most
    }
    new = {name: lines for name, lines in long.items() if lines > exceptions.get(name, 0)}
    assert not new, f"Longer than {most} lines, or longer than the exception allows: {new}. Split by step."
    slack = {name: long.get(name, 0) for name, lines in exceptions.items() if long.get(name, 0) < lines}
    assert not slack, f"Exceptions that may shrink now, to these lengths (0: take it off the list): {slack}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = tree_of(path)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    public = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    owners: list[ast.Module | ast.ClassDef] = [tree, *public]
    for owner in owners:
        for node in owner.body:
            if not isinstance(node, (*FUNCTION, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if isinstance(node, FUNCTION) and any("overload" in ast.unparse(mark) for mark in node.decorator_list):
                continue
            if not ast.get_docstring(node):
                missing.append(f"{node.name} (line {node.lineno})")
    assert not missing, f"{name_of(path)} lacks docstrings: {', '.join(missing)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=name_of)
def test_each_package_opens_with_its_page(path: Path) -> None:
    page = ast.get_docstring(tree_of(path)) or ""
    assert page, f"{name_of(path)} needs the page of its room."
    if path.parent != PACKAGE:
        assert "Does not own" in page, f"{name_of(path)} must say what the room does not own."
        assert "Always true" in page, f"{name_of(path)} must say what is always true in the room."


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    files = [*SOURCES, *TESTS, *PAGES, *PACKAGE.rglob("*.sql"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong, f"Do it, or write down in docs/ what is not done yet: {wrong}"


# --- what exists is documented ---------------------------------------------------------------------------------------


def page(name: str) -> str:
    return (DOCS / "reference" / name).read_text()


def sections(text: str) -> dict[str, str]:
    """The parts of a page under headings that are one word in code style."""
    parts = re.split(r"^#{2,4} `([^`]+)`.*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def differences(documented: set[str], real: set[str], where: str) -> str:
    return f"{where}: missing {sorted(real - documented)}, no longer there {sorted(documented - real)}"


def test_every_refusal_is_documented() -> None:
    text = page("errors.md")
    found = sections(text)
    assert set(found) == set(REFUSALS), differences(set(found), set(REFUSALS), "docs/reference/errors.md")
    for code, (kind, _) in REFUSALS.items():
        assert f'<a id="{code}"></a>' in text, f"errors.md: {code} has no anchor."
        assert f"Status {STATUSES[kind]}." in found[code], f"errors.md: {code} must say Status {STATUSES[kind]}."
        assert "What to do:" in found[code], f"errors.md: {code} must say what to do."


def test_every_setting_is_documented() -> None:
    found = sections(page("settings.md"))
    real = {f"TENUTO_{field.name.upper()}": field.default for field in fields(Settings)}
    assert set(found) == set(real), differences(set(found), set(real), "docs/reference/settings.md")
    for name, default in real.items():
        shown = f"Default: `{default}`." if default != "" else "Default: empty."
        assert shown in found[name], f"settings.md: {name} must say {shown!r}."


def test_every_route_is_documented() -> None:
    found = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]+)`", page("api.md")))
    pages = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/errors", "/docs/topics")
    beside = {("GET", path) for path in pages}
    real = {(route.method, f"/v1{route.path}") for route in ROUTES} | beside
    assert found == real, f"docs/reference/api.md: missing {sorted(real - found)}, not there {sorted(found - real)}"


def test_every_table_and_column_is_documented() -> None:
    found = sections(page("tables.md"))
    schema = (PACKAGE / "store" / "schema.sql").read_text()
    tables = dict(re.findall(r"^create table (\w+) \((.*?)^\)", schema, flags=re.MULTILINE | re.DOTALL))
    real = {*tables, "schema_migration"}
    assert set(found) == real, differences(set(found), real, "docs/reference/tables.md")
    for table, body in tables.items():
        columns = set(re.findall(r"^    (\w+) ", body, flags=re.MULTILINE)) - {"constraint"}
        told = set(re.findall(r"^\| `(\w+)` \|", found[table], flags=re.MULTILINE))
        assert told == columns, differences(told, columns, f"tables.md, {table}")


def test_every_topic_is_documented_with_its_fields_and_an_example() -> None:
    """A topic's fields stand in its own table, and in those of the groups that its section links to."""
    found = sections(page("topics.md"))
    assert set(found) == set(TOPICS), differences(set(found), set(TOPICS), "docs/reference/topics.md")
    parts = re.split(r"^### (Fields of .+)$", page("topics.md").partition("\n## Balances\n")[0], flags=re.MULTILINE)
    groups = {name.lower().replace(" ", "-"): part for name, part in zip(parts[1::2], parts[2::2], strict=True)}
    for name, topic in TOPICS.items():
        text, real = found[name].partition("\n## ")[0], set(topic.fields)
        tables = [text, *(groups[group] for group in re.findall(r"\(#(fields-of-[a-z-]+)\)", text))]
        told = {field for table in tables for field in re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)}
        assert told == real, differences(told, real, f"topics.md, {name}")
        examples = re.findall(r"^```json\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        assert len(examples) == 1, f"topics.md: {name} needs one example, not {len(examples)}."
        shown = set(json.loads(examples[0]))
        assert shown == real, differences(shown, real, f"topics.md, the example of {name}")


def test_every_metric_is_documented() -> None:
    text = (DOCS / "operating.md").read_text()
    found = set(re.findall(r"^\| `(tenuto_\w+)` \|", text, flags=re.MULTILINE))
    real = {str(node.value) for node in texts_of(PACKAGE / "metrics.py") if str(node.value).startswith("tenuto_")}
    assert found == real, differences(found, real, "docs/operating.md")


def test_decisions_are_numbered_and_whole() -> None:
    found = sorted(path.name for path in (DOCS / "decisions").glob("*.md"))
    for number, name in enumerate(found, 1):
        assert re.fullmatch(rf"{number:04}-[a-z0-9-]+\.md", name), (
            f"docs/decisions/{name} should be {number:04}-words.md"
        )
        text = (DOCS / "decisions" / name).read_text()
        assert text.startswith(f"# {number:04}: "), f"{name} opens with its number and title."
        headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Test"], f"{name}: {headings}"


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert text.startswith("# Changelog\n")
    assert versions[0] == "[Unreleased]", "CHANGELOG.md: what comes next stands first, under [Unreleased]."
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version), f"CHANGELOG.md: {version}"
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}, f"CHANGELOG.md: {kinds}"
    for before, line in pairwise(text.partition("## [Unreleased]")[2].splitlines()):
        if line and not line.startswith(("#", "- ")):
            assert line.startswith("  "), f"CHANGELOG.md: {line!r} is no entry (after {before!r})."


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        address, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", address):
            continue
        other = path.parent / address if address else path
        assert other.exists(), f"{name_of(path)} links to {address}, which is not there."
        if anchor and other.suffix == ".md":
            assert anchor in anchors_of(other), f"{name_of(path)} links to {target}, but there is no such heading."


def anchors_of(path: Path) -> set[str]:
    text = path.read_text()
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def test_pages_name_only_commands_that_exist() -> None:
    """Every `make word` and `tenuto word` in the pages is a target or a command."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    cli = ast.parse((PACKAGE / "cli.py").read_text())
    commands = {
        next((word.value.value for word in mark.keywords if isinstance(word.value, ast.Constant)), node.name)
        for node in ast.walk(cli)
        if isinstance(node, FUNCTION)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "command"
    }
    commands |= set(
        re.findall(r'^app\.add_typer\(.*name="([a-z-]+)"', ast.unparse(cli).replace("'", '"'), re.MULTILINE)
    )
    for path in PAGES:
        text = path.read_text()
        blocks = re.findall(r"```(?:sh|console)\n(.*?)```|`([^`\n]+)`", text, flags=re.DOTALL)
        code = "\n".join(block or inline for block, inline in blocks)
        for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", code, flags=re.MULTILINE):
            assert target in targets, f"{name_of(path)} names make {target}, which is no target."
        for command in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?tenuto ([a-z][a-z-]*)", code, flags=re.MULTILINE):
            assert command in commands, f"{name_of(path)} names tenuto {command}, which is no command."
