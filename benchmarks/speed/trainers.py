"""A whole pair step against the loop shape of the public trainers.

Theirs is written here in plain PyTorch: every step encodes its prompts and its videos, the reference is a deep copy,
and policy and reference take winner and loser in passes of their own. Both sides train the same LoRA on the same
pairs with AdamW. Ours is the production loop on a pair set, whose latents were encoded when the set was made. The
videos of the other side are read as raw bytes, which is faster than the mp4 files that such trainers read.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.speed import jobs
from benchmarks.speed.jobs import Bench
from benchmarks.speed.steps import timed
from benchmarks.speed.timing import Clock, Row, apart, memory, ratio, seconds
from vpo_kit.pairing import store
from vpo_kit.registry import METHODS
from vpo_kit.training.loop import train
from vpo_kit.training.paired import Pairs

SIZE, SET, STEPS, BETA = 1, 8, 4, 500.0


class PublicShape:
    """`step` trains on the pairs numbered `rows`."""

    def __init__(self, bench: Bench, folder: Path, prompts: Sequence[str]) -> None:
        self.model, self.folder, self.prompts = bench.model, folder, prompts
        self.network = bench.model.network
        self.reference = copy.deepcopy(self.network)
        self.reference.delete_adapters(["default"])
        self.reference.requires_grad_(False)
        self.parameters = bench.policy.parameters
        self.optimiser = torch.optim.AdamW(self.parameters, lr=1e-5)

    def step(self, rows: Sequence[int]) -> None:
        text = self.model.encode_prompts([self.prompts[i] for i in rows]).tensors["embeds"]
        files = [load_file(self.folder / f"{i}.safetensors") for i in rows]
        members = [torch.stack([file[name] for file in files]).float() / 255 for name in ("first", "second")]
        x = [self.model.encode(video) for video in members]
        noise, t = torch.randn_like(x[0]), torch.sigmoid(torch.randn(len(rows)))
        share = t.view(-1, 1, 1, 1, 1)

        def error(network: Any, latent: Tensor) -> Tensor:
            x_t = (1 - share) * latent + share * noise
            output = network(hidden_states=x_t, timestep=1000 * t, encoder_hidden_states=text, return_dict=False)[0]
            found: Tensor = (output - (noise - latent)).square().mean((1, 2, 3, 4))
            return found

        own = [error(self.network, latent) for latent in x]
        with torch.no_grad():
            known = [error(self.reference, latent) for latent in x]
        delta = (own[0] - known[0]) - (own[1] - known[1])
        functional.softplus(0.5 * BETA * delta).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def trainers() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench.make()
        source = jobs.pair_set(folder / "set", bench.model, SET)
        _write_videos(folder)
        theirs = PublicShape(bench, folder, source.prompts)

        def speed(size: int, rounds: int) -> tuple[Clock, Clock]:
            rows = range(size)
            return timed(bench, "dpo", {}, source, size, lambda clock: clock(lambda: theirs.step(rows)), rounds=rounds)

        ours, other = speed(SIZE, 16)
        larger = speed(4 * SIZE, 5)
        found = [_memory("ours", folder), _memory("theirs", folder)]
    details = {
        "step, s": seconds(ours.processor), "other, s": seconds(other.processor),
        "ratio on the wall": ratio(other.wall, ours.wall), "pairs in a step": SIZE,
        f"with {4 * SIZE} pairs in a step": ratio(larger[1].processor, larger[0].processor),
    }  # fmt: skip
    against = "the public trainers' loop shape"
    peaks = {"peak MB": found[0], "other, peak MB": found[1], "pairs in a step": SIZE}
    return [
        Row("pair step, whole: speed", against, ratio(other.processor, ours.processor), 2.0, False, details),
        Row("pair step, whole: memory", against, round(found[0] / found[1], 3), 0.6, details=peaks),
    ]


def _write_videos(folder: Path) -> None:
    _, videos = jobs.clips(2 * SET)
    whole = (videos * 255).round().to(torch.uint8)
    for i in range(SET):
        save_file({"first": whole[2 * i].clone(), "second": whole[2 * i + 1].clone()}, folder / f"{i}.safetensors")


def _memory(side: str, folder: Path) -> float:
    """In MB; from process to process the same within half a percent."""
    return float(apart("speed.trainers", side, str(folder))["peak"])


def _alone(side: str, folder: Path) -> dict[str, float]:
    """Peak memory of a few steps, above that of a process that has imported and initialised the libraries: weights,
    data, graph, optimiser, and whatever else is held at the worst moment.
    """
    torch.set_num_threads(1)
    _initialise()
    base = memory(reset=True)
    bench = Bench.make()
    found = store.read(folder / "set")
    source = Pairs(found.path, found.pairs, bench.model.frame_map(bench.model.settings.frames))
    if side == "ours":
        with tempfile.TemporaryDirectory() as run:
            train(bench.job(bench.method("dpo", 24, {}, items=SIZE), source, SIZE, STEPS, Path(run), lambda _: None))
    else:
        theirs = PublicShape(bench, folder, source.prompts)
        for i in range(STEPS):
            theirs.step([(i * SIZE + k) % SET for k in range(SIZE)])
    return {"peak": round(memory() - base, 1)}


def _initialise() -> None:
    """Import all, and run the kernels once on networks of next to no size: code and workspaces are then loaded."""
    import diffusers.guiders  # which loading a pipeline imports
    from diffusers import WanPipeline, WanTransformer3DModel
    from peft import LoraConfig

    from vpo_kit.models import wan
    from vpo_kit.sprites.build import components

    assert diffusers.guiders, (WanPipeline, wan)
    for name in METHODS.targets():
        METHODS.load(name)
    sizes = {"in_channels": 8, "out_channels": 8, "text_dim": 64, "freq_dim": 64, "ffn_dim": 64, "num_layers": 1}
    network = WanTransformer3DModel(patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=32, **sizes)
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    words = components.tokenizer()(["a red circle"], return_tensors="pt")
    text = components.text_encoder(64)(**words).last_hidden_state
    output = network(torch.zeros(1, 8, 2, 4, 4), torch.zeros(1), text, return_dict=False)[0]
    output.sum().backward()
    torch.optim.AdamW([p for p in network.parameters() if p.requires_grad]).step()
    with torch.no_grad():
        components.autoencoder(base_dim=4, dim_mult=[1, 1, 1]).encode(torch.zeros(1, 3, 5, 16, 16))


if __name__ == "__main__":
    jobs.show(_alone(sys.argv[1], Path(sys.argv[2])))
