"""Pages: their links lead somewhere, and numbers that come from a result file equal it."""

import re

import pytest
from conftest import ROOT

PATTERNS = ("*.md", "docs/*.md", "lessons/*.md", "results/README.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
# <!-- numbers: FILE FILE --> stands before a table or a paragraph whose numbers are those of the files.
MARKER = re.compile(r"<!-- numbers: (.+) -->\n+((?:.+\n)+)")
NUMBER = re.compile(r"(\d+(?:\.(\d+))?)([kM%]?)")
SCALES = {"k": 1e3, "M": 1e6, "%": 0.01, "": 1}
MARKED = [(page, *found) for page in PAGES for found in MARKER.findall(page.read_text(encoding="utf-8"))]


def numbers(text: str) -> dict[str, tuple[float, float]]:
    """Each number as written: its value, and half a unit of its last digit."""
    found = {}
    for match in NUMBER.finditer(text.replace(",", "")):
        digits, decimals, suffix = match.groups()
        unit = 10.0 ** -len(decimals or "")
        found[match.group()] = (float(digits) * SCALES[suffix], 0.5001 * unit * SCALES[suffix])
    return found


def wrong_numbers(block: str, source: str) -> list[str]:
    """The numbers of a block that round none of the source's."""
    values = [value for value, _ in numbers(source).values()]
    wrong = []
    for written, (value, half) in numbers(block).items():
        if not any(abs(value - other) <= half for other in values):
            wrong.append(written)
    return wrong


def test_a_number_is_found_by_rounding_and_no_other_way():
    source = "| 90-10 | 1.51M | 6.33 ± 0.21 | 57% |"
    assert wrong_numbers("| 90-10 | 1.5M | 6.3 | 0.57 |", source) == []
    assert wrong_numbers("6.4 and 1.6M", source) == ["6.4", "1.6M"]


@pytest.mark.parametrize(("page", "files", "block"), MARKED, ids=[str(page.name) for page, *_ in MARKED])
def test_numbers_are_those_of_the_result_file(page, files, block):
    source = "".join((ROOT / file).read_text(encoding="utf-8") for file in files.split())
    assert wrong_numbers(block, source) == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_first_page_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(len(line) for line in lines if "<img" not in line) <= 100
