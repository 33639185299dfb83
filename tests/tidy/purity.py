"""The rules of test_purity.py as functions from source to findings, so that each is itself tested on bad examples."""

import ast
import re
from collections.abc import Iterator

IMPURE_MODULES = frozenset(
    {"asyncio", "ctypes", "getpass", "glob", "http", "io", "locale", "logging", "os", "pathlib", "platform", "queue"}
    | {"random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile"}
    | {"threading", "time", "uuid", "warnings"}
)
IMPURE_CALLS = frozenset({"breakpoint", "eval", "exec", "input", "open", "print"})
CLOCK_READS = frozenset({"now", "today", "utcnow", "fromtimestamp"})

# Written in pieces so that this file does not contain what it looks for.
_REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "crates" + ".io")
_MIRRORS = ("deb.deb" + "ian.org", "archive.ubu" + "ntu.com", "proxy.go" + "lang.org", "maven" + ".org")
_MACHINE = ("/wo" + "rk/", "/tm" + "p/v/", "/tm" + "p/dk", "/opt/" + "wheels", "/home/[a-z]")
FORBIDDEN_WORDS = re.compile("|".join([re.escape(word) for word in _REGISTRIES + _MIRRORS] + list(_MACHINE)))
BARE_NOTE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))")
VAGUE_NAME = re.compile(r"(?:^|_)(?:utils?|helpers?|managers?|process)(?:_|$)")


def impurities(tree: ast.Module) -> Iterator[str]:
    """What a module of the core must not do: read a clock, use randomness, do I/O, log."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                modules = []
        for module in modules:
            if module.split(".")[0] in IMPURE_MODULES:
                yield f"line {node.lineno}: imports {module}"
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield f"line {node.lineno}: calls {name}"
            case ast.Attribute(
                value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date"), attr=name
            ) if name in CLOCK_READS:
                yield f"line {node.lineno}: reads a clock with {name}"


def _is_git_command(function: ast.expr) -> bool:
    """`something.git.command`, as GitPython offers raw Git commands; setting their environment is none."""
    match function:
        case ast.Attribute(value=ast.Attribute(attr="git"), attr=name):
            return name not in {"update_environment", "custom_environment"}
        case _:
            return False


def _is_fixed(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Constant)


def open_git_commands(tree: ast.Module) -> Iterator[str]:
    """Raw Git commands whose arguments are not all written down in place: a value could become an option."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_git_command(node.func):
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if not all(_is_fixed(argument) for argument in arguments):
                yield f"line {node.lineno}: a raw Git command with variable arguments"


def shells(tree: ast.Module) -> Iterator[str]:
    """Calls that hand a string to a shell."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(keywords=keywords) if any(k.arg == "shell" and not _is_false(k.value) for k in keywords):
                yield f"line {node.lineno}: shell=…"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen" as name)):
                yield f"line {node.lineno}: os.{name}"


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def words(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Each match with its line."""
    for number, line in enumerate(text.splitlines(), start=1):
        for found in pattern.finditer(line):
            yield f"line {number}: {found.group(0)}"
