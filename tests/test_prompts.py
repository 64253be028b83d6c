"""Prompt files of every kind, and sets by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpo_kit.errors import DataError
from vpo_kit.prompts import ELSEWHERE, read_prompts


def test_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# no prompt\n a  red\tcircle \n\na blue one\na red circle\n")
    assert read_prompts(tmp_path / "p.txt") == ["a red circle", "a blue one"]


def test_columns(tmp_path: Path) -> None:
    table, lines = tmp_path / "p.csv", tmp_path / "p.jsonl"
    table.write_text('id,prompt,long\n1,"# one, two",x\n2,,y\n3,three,x\n')
    lines.write_text("".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate("ab")))
    assert read_prompts(table) == ["# one, two", "three"]
    assert read_prompts(Path(f"{table}:long")) == ["x", "y"]
    assert read_prompts(lines) == ["a", "b"]
    assert read_prompts(Path(f"{lines}:n")) == ["1"]  # a zero is no prompt
    with pytest.raises(DataError, match=r"has no column 'lnog' \(did you mean 'long'\?\), as FILE\.csv:COLUMN"):
        read_prompts(Path(f"{table}:lnog"))
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"no column prompt, text, caption .*: name one"):
        read_prompts(table)
    lines.write_text("[1]\n")
    with pytest.raises(DataError, match="each line is a JSON object"):
        read_prompts(lines)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_says_where_its_file_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^the prompts {name} do not come with vpo: github.com/.*; give the file$"):
        read_prompts(Path(name))
    Path(name).write_text("mine\n")
    assert read_prompts(Path(name)) == ["mine"]
