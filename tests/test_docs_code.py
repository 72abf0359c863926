"""The code in the docs runs, and prints what the docs say that it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tinygan import Network, get_backend
from tinygan.presets import DCGANS, Labels

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["dcgan-pool.md"])
def test_a_page_prints_what_it_says(page):
    place: dict[str, object] = {}
    printed, compared = "", 0
    for kind, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "text":
            assert printed == text
            printed, compared = "", compared + 1
            continue
        assert printed == "", "printed, but not shown in the page"
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(text, page, "exec"), place)
        printed = output.getvalue()
    assert printed == ""
    assert compared >= 5


@pytest.mark.parametrize("name", DCGANS)
def test_the_tables_of_shapes_and_parameters_are_the_codes(name):
    page, preset = (DOCS / "dcgan.md").read_text(encoding="utf-8"), DCGANS[name]
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    cells, backend = [], get_backend("numpy")
    for labels in (Labels(), Labels(10), Labels(10, 50)):
        G = Network(preset.generator(None, labels), (preset.latent,), backend, "G")
        D = Network(preset.discriminator(labels), G.output_shape, backend, "D")
        cells.append(f"{G.parameter_count:,} + {D.parameter_count:,}")
        for net in (G, D) if not labels.classes else ():
            shapes = net.body.shapes(net.input_shape)
            for (words, made), (_, layer) in zip(shapes, net.body.children(), strict=True):
                count = sum(layer.views[parameter].size for parameter in layer.parameters)
                row = f"| {words} | {'×'.join(map(str, made))} | {f'{count:,} ' if count else ''}|"
                assert row in section
            assert f"| all of {net.name} | | {net.parameter_count:,} |" in section
    assert f"| {name} | {' | '.join(cells)} |" in page


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_no_formula_has_a_backslash_that_markdown_eats(page: Path) -> None:
    """Of "\\," in a formula GitHub leaves a comma; \\thinspace, \\enspace and \\cr arrive."""
    code = re.compile(r"^```.*?^```$|^    .*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
    text = code.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r".{0,30}\\[^A-Za-z\s].{0,10}", text) == []
