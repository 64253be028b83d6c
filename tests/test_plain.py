"""Text of people: what is valid is read as it is, what is not is refused with its line, and nothing is repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpo_kit import plain
from vpo_kit.clips.captions import captions
from vpo_kit.errors import DataError
from vpo_kit.judged import table
from vpo_kit.prompts import read_prompts

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
"""Where `str.splitlines` ends a line and a text editor does not."""


def listing(folder: Path, name: str, content: str | bytes) -> list[tuple[str, object]]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(captions(folder))


class TestLines:
    @pytest.mark.parametrize("character", SEPARATORS, ids=[f"U+{ord(c):04X}" for c in SEPARATORS])
    def test_a_separator_inside_a_prompt_does_not_split_it(self, tmp_path: Path, character: str) -> None:
        (tmp_path / "p.txt").write_bytes(f"a dog{character}runs\r\na cat\n".encode())
        assert read_prompts(tmp_path / "p.txt") == ["a dog runs", "a cat"]

    @pytest.mark.parametrize("character", SEPARATORS[:3], ids=["U+2028", "U+2029", "U+0085"])
    def test_nor_a_line_of_json(self, tmp_path: Path, character: str) -> None:
        line = json.dumps({"file_name": "a.mp4", "text": f"a{character}b"}, ensure_ascii=False)
        assert listing(tmp_path, "metadata.jsonl", line + "\n") == [("a.mp4", f"a{character}b")]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_lines_of_all_systems(self, end: str) -> None:
        assert plain.lines(f"a{end}{end}b{end}") == ["a", "", "b"]
        assert plain.lines("") == []


class TestEncoding:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("a dog\na cät\n".encode("latin-1"), "line 2, is not UTF-8"),
            ("a dog\n".encode("utf-16"), "is UTF-16"),
            (b"\xfe\xff\0a\0b", "is UTF-16"),
            (b"a dog\na \0 cat\n", "line 2, holds a zero byte"),
        ],
    )
    def test_other_encodings_are_named(self, tmp_path: Path, content: bytes, said: str) -> None:
        (tmp_path / "p.txt").write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_prompts(tmp_path / "p.txt")

    def test_a_byte_order_mark_is_none_of_the_prompt(self, tmp_path: Path) -> None:
        (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa dog\n")
        assert read_prompts(tmp_path / "p.txt") == ["a dog"]

    def test_a_text_beside_a_clip_is_that_clips_trouble_alone(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / f"{name}.mp4").touch()
        (tmp_path / "a.txt").write_bytes("ein Hündchen".encode("latin-1"))
        (tmp_path / "b.txt").write_text("a cat")
        (_, first), second = captions(tmp_path)
        assert isinstance(first, DataError)
        assert "not UTF-8" in str(first)
        assert second == ("b.mp4", "a cat")

    def test_half_a_surrogate_pair(self, tmp_path: Path) -> None:
        line = '{"file_name": "a.mp4", "text": "a \\ud800 dog"}\n'
        with pytest.raises(DataError, match=r"line 1, holds half of a surrogate pair"):
            listing(tmp_path, "metadata.jsonl", line)
        whole = '{"file_name": "a.mp4", "text": "a \\ud83d\\ude00 dog"}\n'
        assert listing(tmp_path, "metadata.jsonl", whole) == [("a.mp4", "a \U0001f600 dog")]


class TestTables:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """Line ends of all systems inside a cell, quotes, separators; lines end in one sign."""
        cells = ["a\rb", "a\nb", "a\r\nb", 'say "a"', "a, b", "", "\u2028"]
        text = plain.csv_text(["name", "cell"], [{"name": str(i), "cell": cell} for i, cell in enumerate(cells)])
        columns, rows = plain.csv_of(text, tmp_path)
        assert columns == ["name", "cell"]
        assert [row for _, row in rows] == [[str(i), cell] for i, cell in enumerate(cells)]
        assert plain.csv_text(["a", "b"], [{"a": 1}, {"b": None, "a": 2.5}]) == "a,b\n1,\n2.5,\n"

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ("a.mp4,a dog\nb.mp4,a dog, running, fast\n", "line 3, has 4 fields, the first line names 2"),
            ("a.mp4\n", "line 2, has 1 fields"),
            ('a.mp4,"a dog\nb.mp4,a cat\n', "line 2: unexpected end of data"),
            ('a.mp4,"a dog\nb.mp4,"a cat"\n', "line 2: ',' expected"),
            ('a.mp4,"a "big" dog"\n', "line 2: ',' expected"),
        ],
        ids=["more fields", "fewer fields", "open quote", "quote closed by the next", "quote inside"],
    )
    def test_a_damaged_row_is_refused_with_its_line(self, tmp_path: Path, rows: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            listing(tmp_path, "metadata.csv", f"file_name,text\n{rows}")
        with pytest.raises(DataError, match=said):
            table.read(tmp_path / "metadata.csv")

    @pytest.mark.parametrize("name", ["text", "caption", "prompt"])
    def test_names_of_the_caption(self, tmp_path: Path, name: str) -> None:
        found = listing(tmp_path, "metadata.csv", f'{name},file_name\n"a dog, running, ""fast""",a.mp4\n\n')
        assert found == [("a.mp4", 'a dog, running, "fast"')]
        (tmp_path / "metadata.csv").unlink()
        assert listing(tmp_path, "metadata.jsonl", json.dumps({name: "a", "file_name": "b"})) == [("b", "a")]

    def test_a_caption_of_two_lines_stays_one(self, tmp_path: Path) -> None:
        found = listing(tmp_path, "metadata.csv", 'file_name,text\na.mp4,"a dog\nthat runs"\nb.mp4,a cat\n')
        assert found == [("a.mp4", "a dog\nthat runs"), ("b.mp4", "a cat")]

    def test_unknown_columns_are_said(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not path, words"):
            listing(tmp_path, "metadata.csv", "path,words\na.mp4,a dog\n")

    @pytest.mark.parametrize("line", ["[1]", "3", '{"text": "a"}', '{"file_name": 3, "text": "a"}', "{", "[" * 10**5])
    def test_lines_that_are_no_row(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(DataError, match="line 2"):
            listing(tmp_path, "metadata.jsonl", f'{{"file_name": "a", "text": "b"}}\n{line}\n')
