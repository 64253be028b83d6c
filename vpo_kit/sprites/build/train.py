"""Training of the embedded model's parts: a resumable loop, and the two losses.

Legend: ``B`` clips, ``F`` frames, ``x`` clean latent, ``t`` flow time in [0, 1] (1 is noise).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from vpo_kit.sprites import world

Loss = Callable[[int], Tensor]


def fit(
    model: nn.Module,
    loss: Loss,
    *,
    steps: int,
    lr: float,
    folder: Path,
    name: str,
    save_every: int = 250,
    ema: float = 0.0,
) -> None:
    """Train `model` in place, then load the averaged weights (``ema > 0``) into it.

    The learning rate warms up for 100 steps, stays, and falls to zero over the last third, so that a longer run can
    start from a checkpoint before the fall. `loss` gets the step's number and must depend on nothing else: a run
    that goes on after a kill is then the undisturbed run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    optimiser = MuonAdamW(model)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first = saved["average"], saved["step"]
    started, recent = time.time(), 0.0
    for step in range(first, steps):
        value = loss(step)
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimiser.step(lr * min((step + 1) / 100, 1.0, (steps - step) / (steps / 3)))
        if ema:
            weight = max(1 - ema, 1 / (step + 1))
            for key, tensor in model.state_dict().items():
                average[key].lerp_(tensor, weight)
        recent += float(value.detach())
        if (step + 1) % 50 == 0:
            row = {
                "part": name,
                "step": step + 1,
                "loss": round(recent / 50, 5),
                "seconds": round(time.time() - started),
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            recent = 0.0
        if (step + 1) % save_every == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            torch.save({**state, "step": step + 1}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    if ema:
        model.load_state_dict(average)


class MuonAdamW:
    """Muon for matrices and convolutions (as matrices), AdamW at a tenth of its rate for all else.

    Measured on the autoencoder, 300 steps of 8 crops: mean squared error .036, with AdamW alone .074.
    """

    def __init__(self, model: nn.Module) -> None:
        wide = [p for p in model.parameters() if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 1]
        known = {id(p) for p in wide}
        # torch's Muon takes matrices only: each proxy shares its parameter's storage
        self._proxies = [(nn.Parameter(p.data.view(len(p), -1)), p) for p in wide]
        self._muon = torch.optim.Muon([q for q, _ in self._proxies], weight_decay=0.01)
        self._adam = torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in known], betas=(0.9, 0.98), weight_decay=0.01
        )

    def step(self, lr: float) -> None:
        for proxy, parameter in self._proxies:
            proxy.grad = None if parameter.grad is None else parameter.grad.view_as(proxy)
        for optimiser, rate in ((self._muon, lr), (self._adam, lr / 10)):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def pixels(video: world.Array) -> Tensor:
    """A clip ``[F, 3, H, W]`` in [0, 1] as the autoencoder takes it: ``[3, F, H, W]`` in [-1, 1]."""
    return torch.from_numpy(video).transpose(0, 1) * 2 - 1


def normalised(latents: Tensor, vae: AutoencoderKLWan) -> Tensor:
    """Latents ``[N, C, T, h, w]`` with the mean and deviation that the autoencoder's configuration names taken out."""
    known = vae.config.latents_mean, vae.config.latents_std
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in known)
    return (latents.float() - mean) / std


def crops(videos: Tensor, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """A window of `frames` x `size` x `size` that holds (part of) the shape, from each of ``[B, 3, F, H, W]``."""
    found = []
    for video in videos:
        start = int(torch.randint(video.shape[1] - frames + 1, (1,), generator=generator))
        window = video[:, start : start + frames]
        seen = (window - window.flatten(2).median(-1).values[..., None, None]).abs().amax((0, 1)) > 0.3
        where = seen.nonzero() if seen.any() else torch.tensor([[32, 32]])
        centre = where[int(torch.randint(len(where), (1,), generator=generator))]
        shift = torch.randint(-6, 7, (2,), generator=generator)
        top, left = (centre + shift - size // 2).clamp(0, video.shape[-1] - size).tolist()
        found.append(window[:, :, top : top + size, left : left + size])
    return torch.stack(found)


def autoencoder_loss(vae: AutoencoderKLWan, batch: int, seed: int, *, cropped: bool) -> Loss:
    """Squared and absolute error, both also on the change in time where whole clips are seen.

    Crops of 5 frames and 32 pixels round the shape come first: half of their pixels are shape, against one in twenty,
    and a step costs a sixth. Whole clips come last: trained on short ones, colours drift later in a clip.
    """

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + step)
        torch.manual_seed(seed + step)  # for the posterior's sample
        x = torch.stack([pixels(clip.video) for clip in world.training_clips(batch, seed + step)])
        if cropped:
            x = crops(x, 5, 32, generator)
        y: Tensor = vae.decode(vae.encode(x).latent_dist.sample()).sample
        focus = 1.0 if cropped else 1 + 4 * _shape_mask(x)
        error = (focus * (2 * (y - x).pow(2) + 0.2 * (y - x).abs())).mean()
        return error if cropped else error + 0.2 * (y.diff(dim=2) - x.diff(dim=2)).abs().mean()

    return loss


def _shape_mask(x: Tensor) -> Tensor:
    centre = x.flatten(3).median(-1).values[..., None, None]
    return ((x - centre).abs().amax(1, keepdim=True) > 0.1).float()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as two matrix products, inside this context only.

    In bfloat16 on a CPU the backward pass of torch's fused attention takes half of the whole step for 80 tokens and
    heads of 32; written out, a step takes 0.6 of the time (measured on torch 2.15).
    """
    fused = F.scaled_dot_product_attention

    def plain(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        batch, heads, count, size = query.shape
        with torch.autocast("cpu", enabled=False):
            q, k, v = (part.to(query.dtype).reshape(batch * heads, -1, size) for part in (query, key, value))
            weights = torch.bmm(q * size**-0.5, k.transpose(1, 2)).softmax(-1)
            return torch.bmm(weights, v).view(batch, heads, count, size)

    F.scaled_dot_product_attention = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def flow_loss(
    model: WanTransformer3DModel,
    text: UMT5EncoderModel,
    latents: Tensor,
    tokens: Tensor,
    mask: Tensor,
    empty: tuple[Tensor, Tensor],
    batch: int,
    seed: int,
    *,
    bf16: bool,
) -> Loss:
    """Rectified flow matching, ``t`` logit-normal, the caption dropped in one sample of ten.

    `latents` ``[N, C, T, h, w]``, `tokens` and `mask` ``[N, L]``; `empty` are the tokens and mask of "".
    """

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + step)
        index = torch.randint(len(latents), (batch,), generator=generator)
        x = latents[index].float()
        noise = torch.randn(x.shape, generator=generator)
        t = torch.sigmoid(torch.randn(batch, generator=generator) + 0.3)
        drop = torch.rand(batch, generator=generator) < 0.1
        ids = torch.where(drop[:, None], empty[0], tokens[index])
        seen = torch.where(drop[:, None], empty[1], mask[index])
        x_t = torch.lerp(x, noise, t[:, None, None, None, None])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = text(ids, seen).last_hidden_state * seen[..., None]  # WanPipeline zeroes the padding too
            velocity: Tensor = model(x_t, t * 1000, hidden, return_dict=False)[0]
        return (velocity.float() - (noise - x)).pow(2).mean()

    return loss
