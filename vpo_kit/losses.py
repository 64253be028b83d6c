"""The loss core: per-frame errors in, per-item losses out, reduced in one place. No model inside.

Legend: ``m`` squared error of the network at each latent frame, mean over channels and space, ``[P, T]`` for P pairs;
``w`` winner, ``l`` loser; ``Delta = (m_w - m_w_ref) - (m_l - m_l_ref)``; ``logit = -beta Delta / 2``.
Because errors are means, beta does not depend on the video's size: quote it together with "mean reduction".

Sources: Diffusion-DPO (arXiv 2311.12908, eq. 14), DenseDPO (arXiv 2506.03517, eq. 7 and appendix),
VideoAlign (arXiv 2501.13918), IPO (arXiv 2310.12036).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from vpo_kit import links
from vpo_kit.errors import ConfigError
from vpo_kit.registry import LINKS

Granularity = Literal["clip", "frame", "mean"]


class PreferenceConfig(BaseModel):
    """Settings of the preference loss that every pair method shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: float = Field(500.0, gt=0, description="strength of the tie to the reference (mean reduction)")
    link: str = Field("sigmoid", description=f"from a pair's logit to its loss: {', '.join(LINKS.targets())}")
    beta_schedule: Literal["constant", "squared"] = Field(
        "constant",
        description="squared is beta (1 - level)^2, level the share of noise: invites reward hacking (VideoAlign)",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of wrong labels")
    loser_weight: float = Field(1.0, ge=0, le=1, description="weight of the loser's term; not in the papers")
    margin_cap: float | None = Field(None, gt=0, description="logits above it give no gradient; not in the papers")
    sft_weight: float = Field(0.0, ge=0, description="weight of the winner's own error, an anchor; not in the papers")
    noise_rate: float = Field(0.1, ge=0, lt=0.5, description="link robust: assumed share of swapped labels")
    target: float = Field(0.9, gt=0.5, lt=1, description="link dmpo: how sure of the winner the policy shall become")

    @field_validator("link")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            links.named(value)
        except ConfigError as error:  # pydantic says of which setting
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _read(self) -> PreferenceConfig:
        """An option that the link does not look at would be believed to act."""
        known = {name for link in LINKS.targets() for name in links.named(link).reads}
        options = known - set(links.named(self.link).reads)
        given = sorted(name for name in options if getattr(self, name) != type(self).model_fields[name].default)
        if given:
            raise ValueError(f"link {self.link} does not use {given[0]}: leave it out")
        return self

    @property
    def start(self) -> tuple[float, float] | None:
        """The loss and its slope where policy and reference are the same; None where the winner's own error is part of
        it, which is not known beforehand.
        """
        return None if self.sft_weight else links.named(self.link).start(self)


@dataclass(frozen=True)
class PairErrors:
    """Per-frame errors ``[P, T]`` of both members of P pairs under the policy and under the reference."""

    first: Tensor
    second: Tensor
    first_ref: Tensor
    second_ref: Tensor


@dataclass(frozen=True)
class PreferenceLoss:
    """`value` and `weight` ``[P]`` or ``[P, T]``, to be reduced by `weighted_mean`; `logit` of the same shape, and
    `slope`: how fast the loss falls there as the logit rises, 0 above a cap.
    """

    value: Tensor
    weight: Tensor
    logit: Tensor
    slope: Tensor


def frame_errors(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared error ``[B, C, T, h, w]`` to ``[B, T]``: mean over channels and space, in float32; with a `weight`
    ``[B, T, h, w]`` of mean 1 (`mask_weight`) only what it covers counts, and the mean over frames is that of the mask.
    """
    squared = (prediction.float() - target.float()).pow(2)
    return (squared if weight is None else squared * weight[:, None]).mean((1, 3, 4))


def mask_weight(mask: Tensor) -> Tensor:
    """Masks ``[B, T, h, w]`` as weights whose mean over each video is 1; an empty mask covers nothing."""
    return mask / mask.mean((1, 2, 3), keepdim=True).clamp_min(1e-9)


def output_distance(output: Tensor, reference: Tensor) -> Tensor:
    """Mean squared distance of two networks' outputs ``[B, C, T, h, w]``, ``[B]``: the anchor in output space."""
    return frame_errors(output, reference).mean(1)


def preference_loss(
    errors: PairErrors,
    labels: Tensor,
    config: PreferenceConfig,
    *,
    granularity: Granularity = "clip",
    level: Tensor | None = None,
    pair_weight: Tensor | None = None,
) -> PreferenceLoss:
    """The DPO family's loss for pairs.

    `labels` are +1 (the first is better), -1 or 0 (tie, no loss): ``[P]`` for granularity ``clip`` (errors are
    averaged over frames, then one sigmoid a pair), ``[P, T]`` for ``frame`` (one sigmoid a latent frame, DenseDPO's
    appendix) and ``mean`` (one sigmoid round the mean over the labelled frames: its eq. 7, whose sum would make beta
    depend on the number of frames). `level` ``[P]`` in [0, 1] is the share of noise that `beta_schedule` needs;
    `pair_weight` ``[P]`` multiplies the loss (VideoDPO).
    """
    first, second = errors.first - errors.first_ref, errors.second - errors.second_ref
    own_first, own_second = errors.first, errors.second
    if granularity == "clip":
        first, second, own_first, own_second = (e.mean(1) for e in (first, second, own_first, own_second))
    sign = labels.to(first.dtype)
    anchor = torch.where(sign > 0, own_first, own_second) * (sign != 0)
    # the loser's term alone is weighted: which member loses depends on the label
    first_weight = torch.where(sign < 0, config.loser_weight, 1.0)
    second_weight = torch.where(sign > 0, config.loser_weight, 1.0)
    delta = sign * (first_weight * first - second_weight * second)
    if granularity == "mean":
        labelled = (sign != 0).sum(1).clamp_min(1).to(first.dtype)
        delta, anchor, sign = delta.sum(1) / labelled, anchor.sum(1) / labelled, (sign != 0).any(1).to(first.dtype)
    beta = torch.full_like(delta, config.beta)
    if config.beta_schedule == "squared":
        if level is None:
            raise ValueError("beta_schedule 'squared' needs the noise level of each pair")
        beta = beta * (1 - level.to(beta)).pow(2).view(-1, *[1] * (beta.ndim - 1))
    logit = -0.5 * beta * delta
    cap, link = config.margin_cap, links.named(config.link)
    capped = logit if cap is None else logit.clamp(max=cap)
    value = link.value(capped, config)
    slope = link.slope(capped, config)
    if cap is not None:
        slope = slope * (logit.detach() <= cap)
    if config.sft_weight:
        value = value + config.sft_weight * anchor
    weight = (sign != 0).to(value.dtype)
    if pair_weight is not None:
        weight = weight * pair_weight.to(weight).view(-1, *[1] * (weight.ndim - 1))
    return PreferenceLoss(value, weight, logit, slope)


def safeguard(errors: PairErrors, inner: Tensor, labels: Tensor, slack: float) -> tuple[PairErrors, Tensor]:
    """Errors of the same values whose loser has a gradient so much smaller that, to first order and as far as outputs
    alone are moved, no step raises the winner's error (Diffusion-SDPO, arXiv 2511.03317); and that factor, of the shape
    of `labels`.

    With residuals ``r`` (output less target) it is ``(1 - slack) |r_w|^2 / <r_l, r_w>``, at most 1, where the product
    is positive, else 1. `inner` ``[P, T]`` is the mean product of both members' residuals; by frame where the labels
    are, else by pair (the paper has one factor a batch).
    """
    first, second = errors.first.detach(), errors.second.detach()
    if labels.ndim == 1:
        first, second, inner = first.mean(1), second.mean(1), inner.mean(1)
    winner = torch.where(labels > 0, first, second)
    factor = torch.where(inner > 0, ((1 - slack) * winner / inner).clamp(0, 1), 1.0)

    def held(own: Tensor, loses: Tensor) -> Tensor:
        share = torch.where(loses, factor, 1.0)
        fixed = own.detach()
        return fixed + (share if share.ndim == 2 else share[:, None]) * (own - fixed)

    both = held(errors.first, labels < 0), held(errors.second, labels > 0)
    return PairErrors(*both, errors.first_ref, errors.second_ref), factor


def unpaired_loss(gain: Tensor, good: Tensor, baseline: Tensor, beta: float) -> Tensor:
    """Diffusion-KTO (arXiv 2404.04465) ``[N]``: of a good video ``1 - sigma(beta (g - z))``, of a bad one
    ``1 - sigma(beta (z - g))``.

    `gain` ``g = m_ref - m`` is how far the policy has brought a video's error down, `good` says which are, and
    `baseline` ``z`` is the mean gain of the batch, not below 0 and without gradient.
    """
    sign = torch.where(good, 1.0, -1.0).to(gain.dtype)
    return torch.sigmoid(-beta * sign * (gain - baseline))


def margin_loss(
    winner: Tensor, loser: Tensor, *, beta: float, temperature: float, scale: float
) -> tuple[Tensor, Tensor]:
    """MaPO (arXiv 2406.06424) ``m_w - beta log sigma(T (f(m_w) - f(m_l)))`` with ``f(m) = s m / (exp(s m) - 1)``, and
    its logit, both of the errors' shape: no reference is looked at.
    """
    logit = temperature * (_odds(scale * winner) - _odds(scale * loser))
    return winner + beta * torch.nn.functional.softplus(-logit), logit


def _odds(x: Tensor) -> Tensor:
    """The function ``x / (exp(x) - 1)``, which is 1 at 0."""
    safe = torch.where(x.abs() < 1e-6, torch.ones_like(x), x)
    return torch.where(x.abs() < 1e-6, 1 - x / 2, safe / torch.expm1(safe))


def weighted_mean(value: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """``sum(value * weight) / total``, with zero and no NaN where all weights are zero.

    `total` is the weight of the whole global batch where that is larger than this one (several processes,
    accumulation); by default it is this batch's own number of items with a weight, so weights scale the loss.
    """
    count = (weight > 0).sum() if total is None else total
    kept = torch.where(weight > 0, value * weight, torch.zeros_like(value))
    return kept.sum() / count.clamp_min(1).to(value.dtype)


def pair_weights(scores_w: Tensor, scores_l: Tensor, history: Tensor, *, alpha: float, bins: int = 20) -> Tensor:
    """VideoDPO's weights ``(p_max / sqrt(p_w p_l))^alpha`` ``[P]``: rare scores count more (arXiv 2412.14167).

    `history` holds all scores seen; ``p`` is the share of its histogram's bin into which a score falls.
    """
    counts = torch.histc(history.float(), bins, float(history.min()), float(history.max()))
    share = counts.clamp_min(1) / counts.sum()
    low, width = history.min(), (history.max() - history.min()).clamp_min(1e-12) / bins
    p_w, p_l = (share[((s - low) / width).long().clamp(0, bins - 1)] for s in (scores_w, scores_l))
    return (share.max() / (p_w * p_l).sqrt()).pow(alpha)
