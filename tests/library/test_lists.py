"""What the lists say is what the classes say, it fits 80 columns, and no list imports what it names."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from vpo_kit import catalogue, config, fields
from vpo_kit.cli import main
from vpo_kit.errors import ConfigError
from vpo_kit.library import lists
from vpo_kit.registry import METHODS, REWARDS

LISTS = (["methods"], ["rewards"], ["metrics"], ["models"], ["config"])


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_what_is_generated_is_up_to_date() -> None:
    assert catalogue.FILE.read_text(encoding="utf-8") == lists.text(), "make lists"
    assert lists.PAGE.read_text(encoding="utf-8") == lists.page(), "make lists"


def test_every_field_has_a_meaning() -> None:
    kinds = [config.Run, *(registry.load(name).Config for registry in (METHODS, REWARDS) for name in registry.builtins)]
    assert not [one.name for kind in kinds for one in fields.of(kind) if not one.meaning]


@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_lists_import_nothing_heavy_and_cost_little(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom vpo_kit.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 8
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3  # torch alone is more


@pytest.mark.parametrize(
    "arguments", [["methods"], ["rewards"], ["metrics"], ["models"], ["rewards", "hpsv3"]], ids=" ".join
)
def test_they_fit_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert max(map(len, shown(capsys, *arguments))) <= 80


def test_every_part_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, names in ((["methods"], METHODS.builtins), (["rewards"], REWARDS.builtins)):
        first = [line.split()[0] for line in shown(capsys, *arguments) if line]
        assert all(first.count(name) == 1 for name in names)


class TestOne:
    def test_a_method_with_every_field(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = "\n".join(shown(capsys, "methods", "dense"))
        assert "learns from guided pairs" in text
        for one in fields.of(METHODS.load("dense").Config, "method."):
            assert f"{one.name} = {one.default}" in text

    def test_weights_that_are_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = " ".join(" ".join(shown(capsys, "rewards", "dover")).split())
        assert "weights missing: reward 'dover' needs weights: download DOVER.pth (0.2 GB" in text
        assert "NON-COMMERCIAL" in text

    def test_weights_that_are_here(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert "weights  ship with the package" in "\n".join(shown(capsys, "rewards", "vqa"))
        (tmp_path / "DOVER.pth").write_bytes(bytes(1_500_000))
        kind = REWARDS.load("dover")
        assert kind.locate(kind.Config(weights=tmp_path / "DOVER.pth")) == [tmp_path / "DOVER.pth"]

    def test_an_unknown_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["methods", "dens"])
        assert "did you mean 'dense'?" in capsys.readouterr().err


class TestConfig:
    def test_a_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert shown(capsys, "config", "lr")[0].startswith("optimiser.lr = 1e-05")
        assert "[dense, " in " ".join(shown(capsys, "config", "beta"))

    def test_a_word_of_a_meaning(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "gradient_checkpointing = false  (true | false)" in shown(capsys, "config", "backward pass")

    def test_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            main(["config", "xyzzy"])
        assert end.value.code == 2

    @pytest.mark.parametrize(
        ("given", "hint"),
        [({"lr": 1}, "'optimiser.lr'"), ({"beta": 1}, "'method.beta'"), ({"lora": {"lr": 1}}, "'optimiser.lr'"),
         ({"stps": 1}, "'steps'")],
    )  # fmt: skip
    def test_a_field_of_another_section_is_named(self, given: dict[str, object], hint: str) -> None:
        with pytest.raises(ConfigError, match=f"did you mean {hint}"):
            config.build(given)


def test_values_in_words() -> None:
    class Inner(BaseModel):
        depth: int = 1

    class Outer(BaseModel):
        share: float | None = Field(None, gt=0, le=1, description="a share")
        inner: Inner = Inner()
        maybe: Inner | None = None
        must: str

    found = [(one.name, one.values, one.default) for one in fields.of(Outer, "x.")]
    assert found == [
        ("x.share", "float > 0 <= 1", "null"), ("x.inner.depth", "int", "1"), ("x.maybe", "section", "null"),
        ("x.maybe.depth", "int", "1"), ("x.must", "text", "required"),
    ]  # fmt: skip


def test_methods_of_a_help_text() -> None:
    found = catalogue.learning_from("videos").split(", ")
    assert found == [name for name in METHODS.builtins if "videos" in METHODS.load(name).needs.data]
    assert catalogue.learning_from("pairs", only="independent") == "dpo"
    assert "dpo" not in catalogue.learning_from("pairs", apart="independent").split(", ")
