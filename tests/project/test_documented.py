"""The figures in README and docs stand in the files of benchmarks/results that the page names.

A page names a file as ``benchmarks/results/NAME.json``; a README beside the results may leave the folder away. A figure
must be in a file that its section (what lies between two headings) names, or, where that names none, in one of the
page's: rounded to the digits shown, and with the sign where one is shown. A figure is what stands outside code, inline
code, addresses and arXiv ids and is

- a decimal fraction, a signed number, or a number with one of `UNITS`;
- in a table any number, save in the first column, in a cell that holds numbers and units alone.

Settings and formulas are therefore written as inline code. The few figures of others, such as sizes of published
weights, are listed with a reason in ``tests/data/quoted.yaml``. ``benchmarks/LOG.md`` is notes and not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT

QUOTED = ROOT / "tests" / "data" / "quoted.yaml"
FOLDER = "benchmarks/results"
FACTS = ("commit", "date", "versions")
NO_FIGURES = {*FACTS, "machine", "python", "torch", "command", "note"}
"""Keys whose values say what a result rests on: no figure of a page may rest on a version number or a setting."""

UNITS: dict[str, tuple[float, ...]] = {
    "%": (1, 100), "percent": (1, 100), "KB": (1,), "MB": (1, 1e-6), "GB": (1, 1e-9), "GiB": (1, 2**-30),
    "ms": (1, 1e3), "s": (1,), "seconds": (1,), "min": (1, 1 / 60), "minutes": (1, 1 / 60),
    "px": (1,), "pixels": (1,), "M": (1e-6,), "B": (1e-9,),
}  # fmt: skip
"""By what a number in a file (a share, bytes, seconds, a count) may be multiplied to be one with this unit."""

NOT_PROSE = re.compile(
    r"^```.*?^```|<!--.*?-->|^ {4,}.*?$|`[^`]+`|(?<=\])\([^)]*\)|https?://\S+|arXiv:? ?\d+\.\d+",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(
    r"(?<![\w.,/-])(?P<sign>[-+])?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)(?!\.?\d)"
    rf"(?: ?(?P<unit>{'|'.join(sorted(UNITS, key=len, reverse=True))})(?!\w))?(?![\w%])"
)
NAMED = re.compile(rf"{FOLDER}/([\w/-]+\.json)")
BESIDE = re.compile(r"[\w/-]+\.json")


@dataclass(frozen=True)
class Figure:
    """A number as a page shows it."""

    text: str
    sign: str | None
    digits: str
    unit: str | None
    line: str

    @property
    def value(self) -> float:
        return float(self.digits.replace(",", ""))

    @property
    def places(self) -> int:
        return len(self.digits.partition(".")[2])

    def is_in(self, numbers: Sequence[float]) -> bool:
        """Whether one of `numbers` is this one, rounded to the digits shown; where no sign is shown, any will do."""
        half = 0.5 * 10**-self.places * (1 + 1e-6)
        factors = UNITS[self.unit] if self.unit else (1,)
        turned = [-number if self.sign == "-" else number if self.sign else abs(number) for number in numbers]
        return any(abs(number * factor - self.value) <= half for number in turned for factor in factors)


def blank(text: str) -> str:
    """`text` with letters in the place of all that is no prose: a cell with code in it is no cell of figures."""
    return NOT_PROSE.sub(lambda found: re.sub(r"[^\n]", "x", found.group()), text)


def figures(text: str, names: Sequence[str] = ()) -> Iterator[Figure]:
    """The figures of a page. A number right behind one of `names` is that product's version or size."""
    known = "|".join(map(re.escape, names))
    measured = "|".join(unit for unit in UNITS if unit != "B")
    version = re.compile(
        rf"\b(?:{known})(?:(?: and| or| T2V)? v?\d+(?:\.\d+)?B?(?![\w.]*\d)(?! ?(?:{measured})(?!\w)))+"
    )
    for shown, line in zip(text.splitlines(), blank(text).splitlines(), strict=True):
        line = version.sub("name", line) if names else line
        cells = line.strip().strip("|").split("|") if line.lstrip().startswith("|") else [line]
        for place, cell in enumerate(cells):
            rest = NUMBER.sub("", cell)
            counted = len(cells) > 1 and place > 0 and not re.search(r"[^\W\d]", rest)
            for found in NUMBER.finditer(cell):
                if found["unit"] == "B" and "." not in found["digits"]:
                    continue  # "14B" is a model's name
                if counted or found["sign"] or found["unit"] or "." in found["digits"]:
                    yield Figure(found.group().strip(), found["sign"], found["digits"], found["unit"], shown.strip())


def numbers_in(value: Any) -> Iterator[float]:
    """Every number of a result, those in texts and in the names of fields too, without what it rests on."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, str):
        for found in NUMBER.finditer(value):
            yield float((found["sign"] or "") + found["digits"].replace(",", ""))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NO_FIGURES:
                yield from numbers_in(key)
                yield from numbers_in(inner)
    else:
        for inner in value:
            yield from numbers_in(inner)


def sections(text: str) -> list[str]:
    """A page cut before its headings; a line of code that looks like one is none."""
    starts = [found.start() for found in re.finditer(r"^#+ ", blank(text), re.MULTILINE)]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]


def named_files(text: str, page: Path, root: Path = ROOT) -> set[Path]:
    """The results that a page or a part of it names, those that are not there yet left out."""
    found = {root / FOLDER / name for name in NAMED.findall(text)}
    if root / FOLDER in page.parents:
        found |= {page.parent / name for name in BESIDE.findall(text)}
    return {file for file in found if file.is_file()}


def unbacked(page: Path, root: Path = ROOT, names: Sequence[str] = ()) -> list[Figure]:
    """The figures of a page that none of the files that it names holds."""
    whole = page.read_text(encoding="utf-8")
    missing: list[Figure] = []
    for text in sections(whole):
        files = named_files(text, page, root) or named_files(whole, page, root)
        numbers = [number for file in files for number in numbers_in(json.loads(file.read_text(encoding="utf-8")))]
        missing += [figure for figure in figures(text, names) if not figure.is_in(numbers)]
    return missing


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / FOLDER).rglob("README.md"))]


def quoted() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(QUOTED.read_text(encoding="utf-8"))
    return found


def listed(groups: Sequence[Mapping[str, Any]]) -> set[str]:
    return {figure for group in groups for figure in group["figures"]}


# the pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_figure_of_a_page_is_in_a_file_that_it_names(page: Path) -> None:
    known = quoted()
    exempt = listed(known["everywhere"]) | listed(known["pages"].get(str(page.relative_to(ROOT)), []))
    wrong = [figure for figure in unbacked(page, names=known["names"]) if figure.text not in exempt]
    assert not wrong, "\n".join(f"{figure.text}: {figure.line}" for figure in wrong)


def test_every_exception_is_still_on_its_page() -> None:
    known = quoted()
    every = set()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        shown = {figure.text for figure in figures(text, known["names"])}
        every |= shown
        assert listed(known["pages"].get(str(page.relative_to(ROOT)), [])) <= shown, page
    assert listed(known["everywhere"]) <= every
    assert set(known["pages"]) <= {str(page.relative_to(ROOT)) for page in pages()}


def test_every_result_is_named_by_a_page_and_says_when_and_with_what_it_was_made() -> None:
    named = set().union(*(named_files(page.read_text(encoding="utf-8"), page) for page in pages()))
    results = set((ROOT / FOLDER).rglob("*.json"))
    assert results, "no results"
    assert not results - named, "named by no page"
    for file in sorted(results):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert not [key for key in FACTS if not found.get(key)], file
        assert re.fullmatch(r"[0-9a-f]{7,40}", found["commit"]), file
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"]), file


# the rule itself


RESULT = {
    "commit": "0123456",
    "versions": {"torch": "9.9"},
    "gain": 0.14757,
    "share": 0.354,
    "peak": 235e9,
    "took": 205.3,
}


def page_of(root: Path, text: str) -> Path:
    file = root / FOLDER / "one.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(RESULT))
    page = root / "README.md"
    page.write_text(text)
    return page


def missing(root: Path, text: str, names: Sequence[str] = ()) -> list[str]:
    return [figure.text for figure in unbacked(page_of(root, text), root, names)]


NAME = f"`{FOLDER}/one.json`"


def test_a_wrong_figure_is_found(tmp_path: Path) -> None:
    right = f"It gains +0.148 in 3.4 minutes, 35.4% of clips ({NAME}); a peak of 235 GB.\n"
    assert missing(tmp_path, right) == []
    assert missing(tmp_path, right.replace("0.148", "0.147")) == ["+0.147"]
    assert missing(tmp_path, right.replace("3.4 m", "3.5 m")) == ["3.5 minutes"]
    assert missing(tmp_path, right.replace("35.4%", "35.5%")) == ["35.5%"]
    assert missing(tmp_path, right.replace("235 GB", "236 GB")) == ["236 GB"]
    assert missing(tmp_path, f"{right}Version 9.9 backs nothing.\n") == ["9.9"]


def test_a_wrong_sign_is_found(tmp_path: Path) -> None:
    assert missing(tmp_path, f"-0.148 ({NAME})") == ["-0.148"]


def test_a_section_is_backed_by_the_files_that_it_names_itself(tmp_path: Path) -> None:
    page = page_of(tmp_path, f"# A\n0.148 ({NAME})\n# B\n0.148\n# C\n0.148 (`{FOLDER}/two.json`)\n```\n# 7\n```\n")
    (tmp_path / FOLDER / "two.json").write_text('{"gain": 0.2}')
    assert [figure.line for figure in unbacked(page, tmp_path)] == [f"0.148 (`{FOLDER}/two.json`)"]


def test_a_page_that_names_no_file_has_no_figures(tmp_path: Path) -> None:
    assert missing(tmp_path, "It gains +0.148.\n") == ["+0.148"]
    assert missing(tmp_path, f"It gains +0.148 (`{FOLDER}/another.json`).\n") == ["+0.148"]


def test_figures_of_a_table_are_all_its_numbers(tmp_path: Path) -> None:
    table = "| | before | 2 steps |\n|---|---|---|\n| 4 steps | 17 | `17` |\n| b | **18**, 19 px | best of 5 |\n"
    assert missing(tmp_path, table + NAME) == ["17", "18", "19 px"]


@pytest.mark.parametrize("text", [
    "```\n0.5\n```\n", "as so:\n\n    vpo eval 0.5\n", "with `--set a=0.5`", "[here](page-0.5.md)", "arXiv 2412.15159",
    "<!-- 0.5 -->", "version 1.2.3", "v0.5", "Apache-2.0", "at 127.0.0.1", "40 steps", "on 1/2 s",
])  # fmt: skip
def test_what_is_no_figure(tmp_path: Path, text: str) -> None:
    assert missing(tmp_path, text) == []


@pytest.mark.parametrize(
    "text", ["0.5", ".5", "+3", "-3", "5%", "7 MB", "7 ms", "1,234.5", "(0.5)", "1.42B parameters"]
)
def test_what_is_a_figure(tmp_path: Path, text: str) -> None:
    assert len(missing(tmp_path, f"There is {text}.\n")) == 1


def test_a_version_is_known_by_the_name_before_it(tmp_path: Path) -> None:
    assert missing(tmp_path, "Wan 2.1 and 2.2, Wan 2.1 1.3B, Wan 2.1 T2V 1.3B and 14B", ["Wan"]) == []
    assert missing(tmp_path, "Wan takes 2.5 GB, Wan 2.5 GB, Bee 2.5", ["Wan"]) == ["2.5 GB", "2.5 GB", "2.5"]
