# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a page for each module and role from its own specification.

usage: generate.py [--check]: with --check nothing is written, and a page that is not current is an error.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTICE = "<!-- Written by `make docs` from the specification in {source}: edit that. -->"

Spec = Mapping[str, Any]

# C(code) and its kin may not hold a ")"; V(value) and its kin escape it with a backslash.
_CODE = re.compile(r"\b(?:C\(([^)]*)\)|(?:V|O|E|RV)\(((?:\\.|[^\\)])*)\))")
_MODULE = re.compile(r"\b(?:M\(([\w.]+)\)|P\(([\w.]+)#module\))")
_ROLE = re.compile(r"\bP\(([\w.]+)#role\)")
_LINK = re.compile(r"\bL\(([^,)]+), *([^)]+)\)")
_URL = re.compile(r"\bU\(([^)]+)\)")
_EMPHASIS = re.compile(r"\b[IB]\(([^)]*)\)")


def markdown(text: str) -> str:
    """Turn Ansible's markup into Markdown."""
    text = _CODE.sub(lambda m: "`" + re.sub(r"\\(.)", r"\1", m[1] or m[2]) + "`", text)
    text = _MODULE.sub(lambda m: _reference(m[1] or m[2], "modules"), text)
    text = _ROLE.sub(lambda m: _reference(m[1], "roles"), text)
    text = _LINK.sub(r"[\1](\2)", text)
    text = _URL.sub(r"<\1>", text)
    return _EMPHASIS.sub(r"*\1*", text)


def _reference(name: str, kind: str) -> str:
    """Link what belongs to this collection; name what does not."""
    own = name.removeprefix("fastpath.node.")
    return f"`{name}`" if own == name else f"[{name}](../{kind}/{own}.md)"


def paragraphs(text: str | Iterable[str] | None) -> list[str]:
    """Give a description, which is one paragraph or a list of them, as a list of Markdown paragraphs."""
    parts = [text] if isinstance(text, str) else list(text or [])
    return [markdown(" ".join(part.split())) for part in parts]


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Give the lines of a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines] if lines else []


def literal(value: object) -> str:
    """Give a default or choice as YAML writes it."""
    return "`" + (value if isinstance(value, str) and value else json.dumps(value)) + "`"


def kind(spec: Spec) -> str:
    """Name the type of an option or return value."""
    name = spec.get("type", "str")
    return f"list of {spec['elements']}" if name == "list" and "elements" in spec else str(name)


def flatten(specs: Spec, prefix: str = "") -> Iterator[tuple[str, Spec]]:
    """Yield every option or return value with its path (`config[].name`), parents before children."""
    for name, spec in specs.items():
        path = f"{prefix}{name}"
        yield path, spec
        inner = spec.get("suboptions") or spec.get("options") or spec.get("contains") or {}
        yield from flatten(inner, path + ("[]." if spec.get("type") == "list" else "."))


def option_row(path: str, spec: Spec) -> tuple[str, ...]:
    """Give one row of the table of options: name, type, default, description."""
    texts = paragraphs(spec.get("description"))
    if spec.get("choices"):
        texts.append("One of " + ", ".join(map(literal, spec["choices"])) + ".")
    if spec.get("required"):
        default = "required"
    else:
        default = literal(spec["default"]) if spec.get("default") is not None else ""
    return f"`{path}`", kind(spec), default, "<br>".join(texts)


def option_table(specs: Spec) -> list[str]:
    """Give the table of all options."""
    return table(("Option", "Type", "Default", "Meaning"), (option_row(*item) for item in flatten(specs)))


def return_row(path: str, spec: Spec) -> tuple[str, ...]:
    """Give one row of the table of return values: name, type, when, description."""
    texts = paragraphs(spec.get("description"))
    if spec.get("sample") is not None:
        texts.append("Sample: " + literal(spec["sample"]))
    return f"`{path}`", kind(spec), markdown(str(spec.get("returned") or "")), "<br>".join(texts)


def section(title: str, lines: Iterable[str]) -> list[str]:
    """Give a section, or nothing where it has no lines."""
    body = list(lines)
    return [f"## {title}", "", *body, ""] if body else []


def module_page(name: str, entry: Spec) -> str:
    """Give the page of a module from what ansible-doc says about it."""
    doc: Spec = entry["doc"]
    attributes = (
        (f"`{key}`", spec.get("support", ""), "<br>".join(paragraphs(spec.get("details") or spec["description"])))
        for key, spec in doc.get("attributes", {}).items()
    )
    returns = (return_row(*item) for item in flatten(entry.get("return") or {}))
    see = (f"- {_reference(item['module'], 'modules')}" for item in doc.get("seealso", []) if "module" in item)
    examples = (entry.get("examples") or "").strip("\n")
    lines = [
        f"# fastpath.node.{name}",
        "",
        NOTICE.format(source=f"plugins/modules/{name}.py"),
        "",
        *paragraphs(doc["short_description"] + "."),
        "",
        *_spaced(paragraphs(doc["description"])),
        *section("Options", option_table(doc.get("options", {}))),
        *section("Attributes", table(("Attribute", "Support", "Meaning"), attributes)),
        *section("Notes", (f"- {text}" for text in paragraphs(doc.get("notes")))),
        *section("Examples", ["```yaml", examples, "```"] if examples else []),
        *section("Return values", table(("Key", "Type", "Returned", "Meaning"), returns)),
        *section("See also", see),
    ]
    return "\n".join(lines).rstrip() + "\n"


def role_page(name: str, entry_points: Spec) -> str:
    """Give the page of a role from its argument specification."""
    lines = [f"# Role fastpath.node.{name}", "", NOTICE.format(source=f"roles/{name}/meta/argument_specs.yml"), ""]
    for entry, spec in entry_points.items():
        lines += [] if entry == "main" else [f"## Entry point {entry}", ""]
        lines += _spaced([*paragraphs(spec["short_description"] + "."), *paragraphs(spec.get("description"))])
        options = option_table(spec.get("options") or {})
        lines += section("Variables", options) if entry == "main" else [*options, ""]
    return "\n".join(lines).rstrip() + "\n"


def _spaced(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in (text, "")]


def pages() -> dict[Path, str]:
    """Give all pages by the path that they have in the repository."""
    result = {}
    names = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
    command = ["ansible-doc", "--json", "-t", "module", *(f"fastpath.node.{name}" for name in names)]
    docs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) if names else {}
    for name in names:
        result[ROOT / f"docs/modules/{name}.md"] = module_page(name, docs[f"fastpath.node.{name}"])
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        role = path.parents[1].name
        result[ROOT / f"docs/roles/{role}.md"] = role_page(role, specs)
    return result


def main() -> int:
    """Write or check all pages; the status tells whether they are current."""
    wanted = pages()
    existing = {*ROOT.glob("docs/modules/*.md"), *ROOT.glob("docs/roles/*.md")}
    stale = {path for path, text in wanted.items() if path not in existing or path.read_text(encoding="utf-8") != text}
    stale |= existing - wanted.keys()
    if "--check" in sys.argv[1:]:
        for path in sorted(stale):
            print(f"not current, run `make docs`: {path.relative_to(ROOT)}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale & wanted.keys():
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    for path in existing - wanted.keys():
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
