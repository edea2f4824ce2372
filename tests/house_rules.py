"""The house rules that a machine can check: which part may import which, where SQL stands, how long things are.

`test_layers` applies them to the installed package, and shows on made-up sources that they see a breach.
"""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

# Tools that know nothing of ours.
TOOLS = {"waiting", "outgoing"}
MIDDLE = {"store", "domain", "actions.ports"} | TOOLS
SUPPORT = {"config", "domain", "keyfiles", "logs", "metrics"}
PARTS = SUPPORT | {
    "store",
    "actions",
    "federation",
    "replication",
    "senders",
    "web",
    "lifecycle",
    "supervision",
}
# What each part may import: itself, and these. A part that is not here has no place in the house yet.
MAY_IMPORT = {
    "domain": set(),
    "disk": set(),
    "store": {"disk", "domain"},
    "actions": {"store", "domain", "waiting"},
    "federation": MIDDLE,
    "replication": MIDDLE,
    "senders": MIDDLE,
    "web": {"actions", "domain"},
    "metrics": set(),
    "waiting": set(),
    "outgoing": {"waiting"},
    "logs": {"metrics"},
    "owners": {"disk"},
    "keyfiles": {"disk", "domain", "owners"},
    "config": {"domain"},
    "lifecycle": {"web"},
    "supervision": set(),
    # The composition root: `app`, and the rooms of `parts` in which it makes each part.
    "parts": PARTS,
    "app": PARTS | {"parts"},
    "cli": PARTS | {"app", "disk", "parts", "outgoing", "owners", "waiting"},
    "__main__": {"cli"},
    "__init__": set(),
}
# The rules get time, random bytes and the contents of files as arguments.
NOT_IN_DOMAIN = {
    *("twisted", "treq", "zope", "asyncio", "threading", "concurrent", "socket", "ssl", "http", "subprocess"),
    *("sqlite3", "psycopg", "psycopg_pool", "jinja2", "prometheus_client"),
    *("os", "sys", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "importlib", "logging"),
    *("time", "datetime", "random", "secrets", "uuid"),
}
NOT_CALLED_IN_DOMAIN = {"open", "input", "exec", "eval", "compile"}
MAX_FUNCTION_LINES = 45
MAX_MODULE_LINES = 300
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|REPLACE\s+INTO|"
    r"(CREATE|ALTER|DROP)\s+(UNIQUE\s+|TEMP\s+)?(TABLE|INDEX|VIEW|TRIGGER)|PRAGMA\s+\w+|BEGIN\s+IMMEDIATE|"
    r"ORDER\s+BY|ON\s+CONFLICT)\b",
    re.DOTALL,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WITH_DOCSTRING = (*FUNCTIONS, ast.ClassDef, ast.Module)


@dataclass(frozen=True)
class Module:
    """A module by its dotted name, and what it consists of."""

    name: str
    source: str
    is_package: bool = False

    @property
    def part(self):
        """The part of the house that it belongs to."""
        return part_of(self.name)

    @cached_property
    def tree(self):
        return ast.parse(self.source)


def part_of(name):
    return name.split(".")[1] if "." in name else "__init__"


def modules_in(folder):
    found = {}
    for path in sorted(folder.rglob("*.py")):
        names = ["sydentish", *path.relative_to(folder).with_suffix("").parts]
        is_package = names[-1] == "__init__"
        name = ".".join(names[:-1] if is_package else names)
        found[name] = Module(name, path.read_text(encoding="utf-8"), is_package)
    return found


def imports_of(module, known):
    """All modules that `module` imports, at the top or inside of functions, relative ones resolved."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")[: None if module.is_package else -1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # `from package import name`: of a module of that name, else of what the package defines.
                inner = f"{base}.{alias.name}"
                is_module = inner in known or base == "sydentish"
                yield inner if is_module else base


def may_import(part, target):
    allowed = MAY_IMPORT.get(part, set()) | {part}
    name = target.removeprefix("sydentish.")
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


# --- the rules: each takes all modules by name and yields a line for every breach ------------------------


def layer_breaches(modules):
    for module in modules.values():
        if module.part not in MAY_IMPORT:
            yield f"{module.name}: the part {module.part} has no place in MAY_IMPORT"
        for target in imports_of(module, modules):
            if target.startswith("sydentish.") and not may_import(module.part, target):
                yield f"{module.name} imports {target}"
            elif target == "sydentish":
                yield f"{module.name} imports the whole package"


def dynamic_import_breaches(modules):
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called_name(node) in {"import_module", "__import__"}:
                yield f"{module.name}:{node.lineno} imports by a string, which no layer test can read"


def domain_breaches(modules):
    for module in modules.values():
        if module.part != "domain":
            continue
        for target in imports_of(module, modules):
            if target.split(".")[0] in NOT_IN_DOMAIN or target == "urllib.request":
                yield f"{module.name} imports {target}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called_name(node) in NOT_CALLED_IN_DOMAIN:
                if isinstance(node.func, ast.Name):
                    yield f"{module.name}:{node.lineno} calls {node.func.id}"
            elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
                yield f"{module.name}:{node.lineno} waits for something"


def type_checking_breaches(modules):
    for module in modules.values():
        for node in ast.walk(module.tree):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            if "TYPE_CHECKING" in names:
                yield f"{module.name}: TYPE_CHECKING"


def ring_breaches(modules):
    graph = {module.name: set(imports_of(module, modules)) & set(modules) for module in modules.values()}
    for name, targets in graph.items():
        if name in targets:
            yield f"{name} imports itself"
            targets.discard(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " <- ".join(error.args[1])


def sql_breaches(modules):
    for module in modules.values():
        if module.part == "store":
            continue
        prose = {id(docstring) for docstring in docstrings(module.tree)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                text = node.value
                # Written small, it counts where a statement begins with it.
                if SQL.search(text) or SQL.match(text.strip().upper()):
                    yield f"{module.name}:{node.lineno} holds SQL"


def print_breaches(modules):
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and node.id == "print":
                yield f"{module.name}:{node.lineno} prints"


def length_breaches(modules):
    for module in modules.values():
        lines = len(module.source.splitlines())
        if lines > MAX_MODULE_LINES:
            yield f"{module.name} has {lines} lines"
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                yield f"{module.name}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"


def called_name(call):
    return getattr(call.func, "id", None) or getattr(call.func, "attr", None)


def docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, WITH_DOCSTRING) and node.body and isinstance(node.body[0], ast.Expr):
            yield node.body[0].value


RULES = [
    layer_breaches,
    dynamic_import_breaches,
    domain_breaches,
    type_checking_breaches,
    ring_breaches,
    sql_breaches,
    print_breaches,
    length_breaches,
]
