"""Each tag such as [dense.2] stands at a code line and at exactly one formula of docs/."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"\[([a-z]+\.\d+)\]")
DEFINITION = re.compile(r"\*\*\[([a-z]+\.\d+)\]\*\*")


def remarks(source: str) -> str:
    """The comments and docstrings of a Python source."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return "\n".join(found + [ast.get_docstring(node) or "" for node in nodes])


def code_tags() -> dict[str, list[str]]:
    """Tag -> the files of tinygan/ and examples/, and the test of the theory, that name it."""
    tags: dict[str, list[str]] = {}
    folders = (ROOT / "tinygan", ROOT / "examples")
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    for path in sorted([*sources, ROOT / "tests" / "test_theory.py"]):
        for tag in TAG.findall(remarks(path.read_text(encoding="utf-8"))):
            tags.setdefault(tag, []).append(str(path.relative_to(ROOT)))
    return tags


def definitions() -> Counter[str]:
    """Tag -> how often docs/ defines it, by **[tag]** before the formula."""
    chapters = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    return Counter(tag for text in chapters for tag in DEFINITION.findall(text))


def test_there_are_tags():
    assert len(code_tags()) > 40
    assert "dense.2" in code_tags()


def test_every_tag_in_the_code_has_its_formula():
    missing = {tag: files for tag, files in code_tags().items() if tag not in definitions()}
    assert not missing, f"no **[tag]** in docs/ for {missing}"


def test_every_formula_with_a_tag_has_its_line_of_code():
    missing = sorted(definitions().keys() - code_tags().keys())
    assert not missing, f"no [tag] in a comment or docstring of the code for {missing}"


def test_a_formula_is_defined_once():
    twice = {tag: count for tag, count in definitions().items() if count > 1}
    assert not twice


def test_numbers_run_without_gaps():
    families: dict[str, set[int]] = {}
    for tag in definitions():
        family, _, number = tag.partition(".")
        families.setdefault(family, set()).add(int(number))
    gaps = {f: sorted(n) for f, n in families.items() if n != set(range(1, len(n) + 1))}
    assert not gaps


def test_chapters_refer_to_formulas_that_exist():
    known = definitions()
    families = "|".join(sorted({tag.partition(".")[0] for tag in known}))
    reference = re.compile(rf"\b((?:{families})\.\d+)\b")
    for path in sorted((ROOT / "docs").glob("*.md")):
        for tag in reference.findall(path.read_text(encoding="utf-8")):
            assert tag in known, f"{path.name} refers to {tag}, which no chapter defines"


def test_a_comment_and_a_docstring_count_and_a_string_does_not():
    source = '"""On [a.1]."""\nx = "[b.1]"  # [c.1]\ndef f():\n    """[d.1]"""\n'
    assert TAG.findall(remarks(source)) == ["c.1", "a.1", "d.1"]
