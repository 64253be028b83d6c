"""What is fuzzed: everything that the tool reads and that a user, a disk or somebody else's server can spoil."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.reliability.mutations import damage, damage_json
from vpo_kit import config
from vpo_kit.errors import VpoError

ROOT = Path(__file__).parent.parent.parent
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


@dataclass(frozen=True)
class Stage:
    """One case: a folder that is cleared afterwards, and its random numbers."""

    folder: Path
    rng: random.Random
    sound: bool = False
    """Nothing is damaged: then nothing may be refused either."""

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def copy(self, source: Path) -> Path:
        shutil.copytree(source, self.folder / source.name)
        return self.folder / source.name

    def damage(self, data: bytes, *, json_too: bool = False) -> bytes:
        if self.sound:
            return data
        if json_too and self.rng.random() < 0.7:
            return damage_json(data, self.rng)
        return damage(data, self.rng)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


Read = Callable[[Stage], None]
Target = Callable[[Path], Read]


def recipe_file(folder: Path) -> Read:
    """YAML recipes: one that says much, and those that ship with the project."""
    from vpo_kit.commands import recipe

    shipped = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]

    def read(stage: Stage) -> None:
        seeds = [RECIPE] if stage.sound or stage.rng.random() < 0.5 else shipped
        recipe.read({}, stage.file("recipe.yaml", stage.damage(stage.rng.choice(seeds))), [])

    return read


def recipe_json(folder: Path) -> Read:
    """Recipes with values of the wrong kind: a resolved recipe as JSON, which is YAML too."""
    from vpo_kit.commands import recipe

    (folder / "recipe.yaml").write_bytes(RECIPE)
    seed = json.dumps(config.build(config.read_file(folder / "recipe.yaml")).model_dump(mode="json")).encode()

    def read(stage: Stage) -> None:
        recipe.read({}, stage.file("recipe.yaml", stage.damage(seed, json_too=True)), [])

    return read


def assignments(folder: Path) -> Read:
    """``--set`` arguments."""
    from vpo_kit.commands import recipe

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


def pair_set(folder: Path) -> Read:
    """Pair sets: listing, facts and latents, with and without a hash that fits, as training reads them."""
    from tests.offline_run import make_set
    from vpo_kit.pairing import check, store
    from vpo_kit.training.data import Pairs, usable

    shape = (2, 3, 2, 2)
    sound = make_set(folder / "set", shape=shape, count=4)

    def read(stage: Stage) -> None:
        path = stage.copy(sound)
        _damage_set(stage, path)
        found = store.read(path)
        check.pairs(found)
        check.strays(found)
        kept = usable(found, shape, lambda pair: bool(pair.label), lambda _: None)
        pairs = Pairs(path, kept, [(0, 1), (1, 5), (5, 9)])
        tensors = pairs.tensors(range(len(kept)))
        assert tensors["first"].shape == (len(kept), *shape)

    return read


def pair_tools(folder: Path) -> Read:
    """``vpo pair merge``, ``split``, ``export``, ``inspect``, ``check`` on damaged sets: what they write is whole."""
    from tests.offline_run import make_set
    from vpo_kit.commands import pair_tools as tools
    from vpo_kit.pairing import store

    sound, other = (make_set(folder / name, shape=(2, 3, 2, 2), count=4) for name in ("set", "other"))

    def read(stage: Stage) -> None:
        path, output = stage.copy(sound), stage.folder / "output"
        _damage_set(stage, path)
        runs: list[Callable[[], None]] = [
            lambda: tools.merge([path, other], output),
            lambda: tools.split(path, 0.5, 0, output),
            lambda: tools.export_set(path, output / "pairs.jsonl"),
            lambda: tools.inspect(path, output / "page.html", 10),
            lambda: tools.check_set(path, decode=False),
        ]
        try:
            stage.rng.choice(runs)()
        finally:
            assert not [name for name in stage.folder.rglob("*.part*") if name.parent.name != ".parts"]
            for listing in output.rglob("metadata.jsonl"):
                assert not store.read(listing.parent).broken

    return read


def _damage_set(stage: Stage, path: Path) -> None:
    rng = stage.rng
    target = rng.choice(["metadata.jsonl", "metadata.jsonl", "metadata.jsonl", "dataset.yaml", "latents/1.safetensors"])
    (path / target).write_bytes(stage.damage((path / target).read_bytes(), json_too=target.endswith("jsonl")))
    if target.startswith("latents") and rng.random() < 0.8:  # as if it had been made so
        listing = path / "metadata.jsonl"
        rows = [json.loads(line) for line in listing.read_text().splitlines()]
        rows[1]["sha256"]["latents"] = hashlib.sha256((path / target).read_bytes()).hexdigest()
        listing.write_text("".join(json.dumps(row) + "\n" for row in rows))


def clip_listing(folder: Path) -> Read:
    """Listings and captions of folders of clips."""
    from vpo_kit.models.base import Settings
    from vpo_kit.pairing.clips import read_folder
    from vpo_kit.video import write_video

    write_video(folder / "clips" / "a.mp4", torch.rand(9, 3, 16, 16), 8)
    seeds = {
        "metadata.jsonl": b'{"file_name": "a.mp4", "text": "a dog"}\n{"file_name": "b.mp4", "text": "a cat"}\n',
        "metadata.csv": b"file_name,text\na.mp4,a dog\nb.mp4,a cat\n",
        "a.txt": b"a dog",
        "a.mp4": (folder / "clips" / "a.mp4").read_bytes(),
    }

    def read(stage: Stage) -> None:
        path = stage.copy(folder / "clips")
        name = stage.rng.choice([*seeds, "metadata.jsonl", "metadata.csv"])
        (path / name).write_bytes(stage.damage(seeds[name], json_too=name.endswith("jsonl")))
        if name == "a.mp4":
            (path / "a.txt").write_text("a dog")
        settings = Settings(9, 16, 16, 8, 1, 1)
        found = read_folder(path, settings, max_windows=2)
        for clip in found.clips:
            assert clip.path.resolve().is_relative_to(path.resolve())
            clip.read(settings)

    return read


def lora_file(folder: Path) -> Read:
    """LoRA files: weights and header, as ``--lora`` and ``lora.init`` read them."""
    from vpo_kit import models
    from vpo_kit.commands import initial
    from vpo_kit.config import Lora
    from vpo_kit.training.lora import LoraPolicy

    model = models.load("sprites")
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    policy.export(folder / "lora")
    model.pipeline.unload_lora_weights()
    del policy
    seed = (folder / "lora" / "pytorch_lora_weights.safetensors").read_bytes()
    length = int.from_bytes(seed[:8], "little")

    def read(stage: Stage) -> None:
        if stage.rng.random() < 0.6:  # the header, with its own length right again
            header = stage.damage(seed[8 : 8 + length], json_too=True)
            data = len(header).to_bytes(8, "little") + header + seed[8 + length :]
        else:
            data = stage.damage(seed)
        path = stage.file("pytorch_lora_weights.safetensors", data)
        initial._header(path)
        try:
            initial.read(model, path)
        finally:
            assert not getattr(model.network, "peft_config", None), "a LoRA is left behind in the model"

    return read


def weights_file(folder: Path) -> Read:
    """Weights of judges: safetensors, and torch files of plain data."""
    from vpo_kit.rewards.parts.weights import read_state

    state = {"layer.weight": torch.randn(3, 4), "layer.bias": torch.zeros(3)}
    save_file(state, folder / "w.safetensors")
    torch.save({"state_dict": state}, folder / "w.pth")
    torch.save(state, folder / "w.pt", _use_new_zipfile_serialization=False)
    seeds = {suffix: (folder / f"w{suffix}").read_bytes() for suffix in (".safetensors", ".pth", ".pt")}

    def read(stage: Stage) -> None:
        suffix = stage.rng.choice(list(seeds))
        read_state(stage.file(f"w{suffix}", stage.damage(seeds[suffix])))

    return read


def checkpoint(folder: Path) -> Read:
    """Checkpoints: any file of the newer of two damaged, with and without hashes that fit. The older one is used."""
    from vpo_kit.training import checkpoints
    from vpo_kit.training.checkpoints import Checkpoint

    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimiser = torch.optim.AdamW([weight])
    weight.grad = torch.ones(3, 2)
    optimiser.step()
    lora = {"a": torch.ones(3, 2)}
    for step in (1, 2):
        state = Checkpoint(step, lora, None, {"m": torch.zeros(1)}, optimiser.state_dict(), {})
        checkpoints.save(folder / "checkpoints", state, keep=3)

    def read(stage: Stage) -> None:
        path, rng = stage.copy(folder / "checkpoints"), stage.rng
        newest = path / "step-000002"
        target = rng.choice(sorted(newest.iterdir()))
        target.write_bytes(stage.damage(target.read_bytes(), json_too=target.suffix == ".json"))
        if target.name != "state.json" and rng.random() < 0.7:
            listing = json.loads((newest / "state.json").read_text())
            listing["sha256"][target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
            (newest / "state.json").write_text(json.dumps(listing))
        found = checkpoints.latest(path)
        assert found is not None
        assert found[0].step in (1, 2)
        assert (found[0].step == 1) == bool(found[1]), "an older checkpoint is used, and nothing said"
        if rng.random() < 0.1:
            shutil.rmtree(path / "step-000001")
            checkpoints.latest(path)

    return read


def run_folder(folder: Path) -> Read:
    """What a run left: its settings and its log, as resume reads them."""
    from vpo_kit.config import build, dump
    from vpo_kit.training.folder import RunFolder

    run = build({"steps": 3})
    row = {"step": 1, "loss": 0.69, "grad_norm": 1.0, "passes": 24.0}
    seeds = {
        "config.yaml": dump(run).encode(),
        "metrics.jsonl": b"".join(json.dumps({**row, "step": i}).encode() + b"\n" for i in (1, 2, 3)),
    }

    def read(stage: Stage) -> None:
        for name, data in seeds.items():
            stage.file(name, data)
        name = stage.rng.choice(list(seeds))
        stage.file(name, stage.damage(seeds[name], json_too=name.endswith("jsonl")))
        found = RunFolder(stage.folder)
        found.check(run, resume=True, overwrite=False)
        rows = found.rewind(3)
        assert [row["step"] for row in rows] == [1, 2, 3]

    return read


def evaluation(folder: Path) -> Read:
    """``metrics.json`` of measured videos, ``settings.json`` of ``vpo eval``, results of VBench."""
    from vpo_kit.evaluation import vbench
    from vpo_kit.evaluation.evaluate import Evaluation
    from vpo_kit.evaluation.folder import EvalFolder

    found = Evaluation("base", ["a", "b"], [0, 1], ["000-0.mp4", "001-0.mp4"], {"vqa": [0.1, 0.2]})
    found.save(folder)
    metrics = (folder / "metrics.json").read_bytes()
    names = vbench.names(found)
    results = {"motion_smoothness": [0.5, [{"video_path": f"x/base/{n}", "video_results": 0.5} for n in names]]}

    def read(stage: Stage) -> None:
        which = stage.rng.randrange(3)
        if which == 0:
            stage.file("metrics.json", stage.damage(metrics, json_too=True))
            Evaluation.load(stage.folder).table()
        elif which == 1:
            stage.file("settings.json", stage.damage(b'{"prompts": ["a"], "seed": 0}', json_too=True))
            EvalFolder(stage.folder).begun({"prompts": ["a"], "seed": 0})
        else:
            path = stage.file("x_eval_results.json", stage.damage(json.dumps(results).encode(), json_too=True))
            vbench.read([path], [found])

    return read


def model_folder(folder: Path) -> Read:
    """``model_index.json`` and ``vpo.json`` of a model folder, and the prompts in it."""
    from vpo_kit.models import loading

    source = loading.EMBEDDED["sprites"]
    seeds = {name: (source / name).read_bytes() for name in ("model_index.json", "vpo.json")}

    def read(stage: Stage) -> None:
        path = stage.folder / "model"
        path.mkdir(parents=True)
        for part in source.iterdir():
            if part.name not in seeds:
                (path / part.name).symlink_to(part)
        name = stage.rng.choice(list(seeds))
        for other, data in seeds.items():
            (path / other).write_bytes(stage.damage(data, json_too=True) if other == name else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loading.load(str(path))

    return read


def reward_request(folder: Path) -> Read:
    """Requests to a reward server: anything but an answer with scores is a status of 400 to 499 of one line."""
    from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
    from vpo_kit.rewards.parts import wire
    from vpo_kit.rewards.server import create_app

    class Brightness(Reward):
        spec = RewardSpec("brightness", "none", "closed form", "0 to 1", True, True, False)

        def forward(self, video: Any, prompts: Any = None, *, fps: float, segments: Any = None) -> RewardOutput:
            parts = (
                None if segments is None else torch.stack([video[:, a:b].flatten(1).mean(1) for a, b in segments], 1)
            )
            return RewardOutput(video.flatten(1).mean(1), parts)

    app = create_app(Brightness(), token="right", max_body_bytes=2**20)
    header = wire.Header(shape=(2, 3, 3, 8, 8), dtype="uint8", fps=8, prompts=["a", "b"], segments=[(0, 1), (1, 3)])
    line, frames = wire.encode(header, torch.rand(2, 3, 3, 8, 8)).split(b"\n", 1)

    def read(stage: Stage) -> None:
        rng = stage.rng
        if rng.random() < 0.7:
            body = stage.damage(line, json_too=True) + b"\n" + frames
        else:
            body = stage.damage(line + b"\n" + frames)
        token, length = (b"Bearer right", str(len(body)).encode())
        headers = [(b"authorization", token), (b"content-length", length)]
        if rng.random() < 0.2:
            headers = [(name, stage.damage(value).replace(b"\n", b"")) for name, value in headers]
        path = stage.damage(b"/score").decode(errors="replace") if rng.random() < 0.1 else "/score"
        status, answer = asyncio.run(_request(app, path, headers, body, rng))
        assert status == 200 or 400 <= status < 500, (status, answer[:300])
        if status != 200:
            assert "\n" not in str(json.loads(answer)["detail"])
            raise VpoError(f"{status}")
        if path == "/score":
            wire.Scores.model_validate_json(answer)

    return read


async def _request(
    app: Any, path: str, headers: list[tuple[bytes, bytes]], body: bytes, rng: random.Random
) -> tuple[int, bytes]:
    """A request as a server hands it to an ASGI application, its body in pieces."""
    at, sent = 0, list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        nonlocal at
        size = rng.choice((1, 100, 10_000)) if at < 200 else 10_000
        part, at = body[at : at + size], at + size
        return {"type": "http.request", "body": part, "more_body": at < len(body)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(errors="replace"), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def vlm_answer(folder: Path) -> Read:
    """What a vision-language model says: a verdict or `ValueError`, which the labeller counts as no answer."""
    from vpo_kit.pairing import vlm

    seeds = [
        b'{"evidence": "the first clip flickers at 0.5 s", "verdict": "second"}',
        b'<think>{"verdict": "tie"}</think>```json\n{"evidence": "a", "verdict": "first"}\n```',
        b"The first clip seems\nfine to me.\n\n**Final verdict:** Tie.",
        b'{not json} {"verdict": "second"} {"a": [1, {"b": 2}]}',
    ]

    def read(stage: Stage) -> None:
        text = stage.damage(stage.rng.choice(seeds), json_too=True)
        if stage.rng.random() < 0.05 and not stage.sound:
            text = (text[: stage.rng.randint(1, 64)] * 2**20)[: stage.rng.choice((2**16, 2**20))]
        try:
            assert vlm.read(text.decode(errors="replace")).verdict in ("first", "second", "tie")
        except ValueError as error:
            raise VpoError(str(error)) from error

    return read


def completion(folder: Path) -> Read:
    """Bodies of chat completions."""
    from vpo_kit.pairing import completion as completions

    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    message = {"role": "assistant", "content": '{"verdict": "tie"}', "refusal": None}
    seed = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m", "usage": usage, "error": None}

    def read(stage: Stage) -> None:
        found = completions.parse(stage.damage(json.dumps(seed).encode(), json_too=True))
        assert found.cost is None or found.cost.total > 0
        try:
            reply = found.reply("m", 10)
        except ValueError as error:
            raise VpoError(completions.line(str(error)) or "?") from error
        assert reply.model.isprintable()

    return read


def model_answers(folder: Path) -> Read:
    """The cache of a model's answers, as a kill or a disk may leave it: damaged lines are passed over."""
    from vpo_kit.pairing.answers import Answers, Record

    records = [
        Record(key=f"k{i}", verdict="tie", evidence="e", pair="p", segment=(0, 3), swapped=False, model="m",
               input_tokens=1, output_tokens=1) for i in range(3)
    ]  # fmt: skip
    seed = b"".join(record.model_dump_json().encode() + b"\n" for record in records)

    def read(stage: Stage) -> None:
        path = stage.file("vlm.jsonl", stage.damage(seed, json_too=True))
        found = Answers(path)
        found.get("new", lambda: records[0].model_copy(update={"key": "new"}))
        assert "new" in Answers(path)

    return read


def peoples_answers(folder: Path) -> Read:
    """The file of people's answers (SQLite)."""
    from vpo_kit.pairing.people.answers import Answer, Answers
    from vpo_kit.pairing.people.questions import Question

    answers = Answers(folder / "people.sqlite", create=True)
    answers.settle({})
    for i in range(3):
        answers.add(Answer(f"k{i}", "ann", Question("p", i, i + 1, "v"), 1, False, 1.0))
    answers.close()
    seed = (folder / "people.sqlite").read_bytes()

    def read(stage: Stage) -> None:
        found = Answers(stage.file("people.sqlite", stage.damage(seed)), create=False)
        try:
            found.settle({})
            found.current()
            found.add(Answer("new", "ann", Question("p", 1, 2, "v"), 1, False, 1.0))
            found.undo("undo", "ann", [Question("p", 1, 2, "v")])
        finally:
            found.close()

    return read


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        recipe_file, recipe_json, assignments, prompt_file, pair_set, pair_tools, clip_listing, lora_file,
        weights_file, checkpoint, run_folder, evaluation, model_folder, reward_request, vlm_answer, completion,
        model_answers, peoples_answers,
    )
}  # fmt: skip
