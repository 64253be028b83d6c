"""Prompt files of every kind, and sets by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpo_kit.errors import DataError
from vpo_kit.inputs import ImageFile, Shade, as_image, cropped
from vpo_kit.prompts import ELSEWHERE, read_inputs, read_prompts


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
    table.write_text("id,prompt\n")
    with pytest.raises(DataError, match=r"p\.csv holds no prompts: it has no row"):
        read_prompts(table)
    lines.write_text('{"prompt": "a"}\n{"prompt": ["b"]}\n')
    with pytest.raises(DataError, match=r"p\.jsonl, line 2: a prompt is a text, not \['b'\]"):
        read_prompts(lines)
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


class TestPictures:
    """Rows with pictures: what is given is there, and what is wrong is named with its line."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "set").mkdir()
        for i in range(2):
            as_image(Shade(i).read(20, 40)).save(tmp_path / "set" / f"{i}.png")
        as_image(Shade(2).read(20, 40)).save(tmp_path / "outside.png")
        return tmp_path / "set"

    def lines(self, folder: Path, *rows: dict[str, object]) -> Path:
        (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder / "p.jsonl"

    def test_what_is_read(self, folder: Path) -> None:
        file = self.lines(
            folder,
            {"prompt": "a", "image": "0.png"},
            {"prompt": "a", "image": "1.png", "last_image": "0.png"},
            {"prompt": "a", "image": "0.png"},
            {"prompt": "b", "image": None},
        )
        first, second, third = read_inputs(file)  # the third row is the first one again
        assert [item.prompt for item in (first, second, third)] == ["a", "a", "b"]
        assert first.image == second.last_image != second.image
        assert third.pictures == []
        assert read_prompts(file) == ["a", "b"]
        (folder / "p.csv").write_text("prompt,image\na,0.png\nb,\n")
        assert read_inputs(folder / "p.csv") == [first, third]
        (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
        (other,) = read_inputs(self.lines(folder, {"prompt": "a", "image": "copy.png"}))
        assert other.keys == first.keys  # known by what is in it
        both = self.lines(folder, {"prompt": "a", "image": "0.png"}, {"prompt": "a", "image": "copy.png"})
        assert read_inputs(both) == [first]
        with pytest.raises(DataError, match=r"line 2: a picture without a prompt: write one or take the row out"):
            read_inputs(self.lines(folder, {"prompt": "a"}, {"prompt": " ", "image": "0.png"}))

    def test_how_it_is_seen(self, folder: Path) -> None:
        (item,) = read_inputs(self.lines(folder, {"prompt": "a", "image": "0.png"}))
        picture = item.image
        assert isinstance(picture, ImageFile)
        whole = picture.read(20, 40)
        torch.testing.assert_close(whole, Shade(0).read(20, 40))
        torch.testing.assert_close(picture.read(20, 20), whole[:, :, 10:30])  # the centre
        assert cropped(picture.size, 20, 20) == 0.5
        assert cropped(picture.size, 10, 20) == 0
        turned = Image.fromarray(np.zeros((4, 8, 4), np.uint8))  # all of it transparent
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(folder / "turned.png", exif=exif)
        found = ImageFile.open(folder / "turned.png")
        assert found.size == (4, 8)
        assert torch.equal(found.read(8, 4), torch.ones(3, 8, 4))
        (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
        with pytest.raises(DataError, match=r"0\.png has changed since the run began"):
            picture.read(20, 40)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("none.png", r"p\.jsonl, line 2: .*none\.png is missing; mend the row or take it out"),
            ("cut.png", r"line 2: .*cut\.png is not an image that can be read"),
            ("text.png", r"line 2: .*text\.png is not an image that can be read"),
            (".", r"line 2: .* is not an image that can be read"),
            ("../outside.png", r"line 2: \.\./outside\.png lies outside .*set: put the pictures beside the file"),
            (7, r"line 2: a picture is named by its path, not by 7"),
            ("x\0.png", r"line 2: 'x\\x00\.png' cannot be the name of a picture"),
            ("x" * 5000, r"line 2: 'xx*' cannot be the name of a picture"),
        ],
    )
    def test_damaged_rows(self, folder: Path, name: object, said: str) -> None:
        (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
        (folder / "text.png").write_text("no image")
        with pytest.raises(DataError, match=said):
            read_inputs(self.lines(folder, {"prompt": "a", "image": "0.png"}, {"prompt": "b", "image": name}))

    def test_sixteen_bits_of_grey(self, folder: Path) -> None:
        grey = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
        Image.fromarray(grey).save(folder / "grey.png")
        found = ImageFile.open(folder / "grey.png").read(8, 8)
        torch.testing.assert_close(found[0], torch.from_numpy(grey / 65535).float(), atol=0.004, rtol=0)

    def test_a_link_out_of_the_folder(self, folder: Path) -> None:
        (folder / "link.png").symlink_to(folder.parent / "outside.png")
        with pytest.raises(DataError, match="lies outside"):
            read_inputs(self.lines(folder, {"prompt": "a", "image": "link.png"}))
