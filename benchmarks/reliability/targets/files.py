"""What a run or a model leaves on disk: weights, checkpoints, logs, measurements."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.reliability.targets.stage import Read, Stage


def lora_file(folder: Path) -> Read:
    """LoRA files: weights and header, as ``--lora`` and ``lora.init`` read them."""
    from vpo_kit import models
    from vpo_kit.config import Lora
    from vpo_kit.training import initial
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
        state = Checkpoint(
            step=step,
            policy=lora,
            reference=None,
            method={"m": torch.zeros(1)},
            optimiser=optimiser.state_dict(),
            best={},
        )
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
    from vpo_kit.training.run_folder import RunFolder

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
    from vpo_kit.evaluation.eval_folder import EvalFolder
    from vpo_kit.evaluation.samples import Results

    found = Results(
        name="base", prompts=["a", "b"], groups=[0, 1], files=["000-0.mp4", "001-0.mp4"], metrics={"vqa": [0.1, 0.2]}
    )
    found.save(folder)
    metrics = (folder / "metrics.json").read_bytes()
    names = vbench.names(found)
    results = {"motion_smoothness": [0.5, [{"video_path": f"x/base/{n}", "video_results": 0.5} for n in names]]}

    def read(stage: Stage) -> None:
        which = stage.rng.randrange(3)
        if which == 0:
            stage.file("metrics.json", stage.damage(metrics, json_too=True))
            Results.load(stage.folder).table()
        elif which == 1:
            stage.file("settings.json", stage.damage(b'{"prompts": ["a"], "seed": 0}', json_too=True))
            EvalFolder(stage.folder).begun({"prompts": ["a"], "seed": 0})
        else:
            path = stage.file("x_eval_results.json", stage.damage(json.dumps(results).encode(), json_too=True))
            vbench.read([path], [found])

    return read


def model_folder(folder: Path) -> Read:
    """``model_index.json`` and ``vpo.json`` of a model folder, and the prompts in it."""
    from vpo_kit import folders
    from vpo_kit.models import loading

    source = folders.EMBEDDED["sprites"]
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
