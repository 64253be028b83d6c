"""What a user writes: recipes, ``--set`` and prompt files."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.reliability.targets.stage import Read, Stage
from vpo_kit import config

ROOT = Path(__file__).parents[3]
RECIPE = b"""\
method: {name: online, beta: 250.0, num_candidates: 4}
reward: {name: "vqa:0.7+technical:0.3"}
model: sprites  # embedded
steps: 3
lora: {rank: 4, alpha: 8, targets: [to_q, to_k]}
optimiser:
  lr: 1.0e-3
  warmup_steps: 2
sampling: {frames: 9, height: 32, width: 32, steps: 3, guidance: 3.0}
evaluation: {num_prompts: 2, judges: [vqa, gold]}
health: {disable: [motion_collapse], window: 5}
"""


def recipe_file(folder: Path) -> Read:
    """YAML recipes: one that says much, and those that ship with the project."""
    from vpo_kit.training import recipe

    shipped = [path.read_bytes() for path in sorted((ROOT / "vpo_kit" / "recipes").glob("*/*.yaml"))]

    def read(stage: Stage) -> None:
        seeds = [RECIPE] if stage.sound or stage.rng.random() < 0.5 else shipped
        recipe.read({}, stage.file("recipe.yaml", stage.damage(stage.rng.choice(seeds))), [])

    return read


def recipe_json(folder: Path) -> Read:
    """Recipes with values of the wrong kind: a resolved recipe as JSON, which is YAML too."""
    from vpo_kit.training import recipe

    (folder / "recipe.yaml").write_bytes(RECIPE)
    seed = json.dumps(config.build(config.read_file(folder / "recipe.yaml")).model_dump(mode="json")).encode()

    def read(stage: Stage) -> None:
        recipe.read({}, stage.file("recipe.yaml", stage.damage(seed, json_too=True)), [])

    return read


def assignments(folder: Path) -> Read:
    """``--set`` arguments."""
    from vpo_kit.training import recipe

    seeds = [
        b"optimiser.lr=1e-3", b"method.beta=500", b"lora={rank: 4, alpha: 8}", b"reward=vqa:0.7+technical:0.3",
        b"evaluation.judges=[vqa, gold]", b"sampling.frames=17", b"method=online", b"health.disable=[not_finite]",
    ]  # fmt: skip

    def read(stage: Stage) -> None:
        texts = [stage.damage(stage.rng.choice(seeds)).decode(errors="replace") for _ in range(stage.rng.randint(1, 3))]
        recipe.read({}, None, texts)

    return read


def prompt_file(folder: Path) -> Read:
    """Prompt files; what is read must be usable lines."""
    from vpo_kit.prompts import read_prompts

    seed = "# prompts\na red circle moving right\n  une fille à la mer \n\n東京の夜\na dog\n".encode()

    def read(stage: Stage) -> None:
        prompts = read_prompts(stage.file("prompts.txt", stage.damage(seed)))
        assert prompts
        assert all(prompt and "\n" not in prompt and "\0" not in prompt for prompt in prompts)

    return read
