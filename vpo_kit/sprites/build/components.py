"""The parts of the embedded pipeline, in the ordinary classes of diffusers and transformers.

Shapes: video ``[B, 3, 17, 64, 64]``, latents ``[B, 8, 5, 8, 8]`` (8x in space, 4x in time, causal),
80 tokens of one frame and 2 x 2 latents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from vpo_kit.sprites import world

MAX_WORDS = 16  # the longest caption is 11 words and the end mark
LATENT_CHANNELS = 8


def tokenizer(more: Sequence[str] = (), length: int = MAX_WORDS) -> PreTrainedTokenizerFast:
    """One token a word of the sprites' captions, lower case, then one for each of `more`; unknown words share one. A
    caption is padded to `length` tokens.
    """
    words = sorted({word for held in (False, True) for s in world.scenes(held_out=held) for word in s.caption.split()})
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *words, *more])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", vocabulary["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def text_encoder(vocab_size: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab_size,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=1,
            num_heads=4,
            relative_attention_num_buckets=8,
            dropout_rate=0.0,
        )
    )


def autoencoder(**changes: Any) -> AutoencoderKLWan:
    """0.7M parameters. Without `is_residual` it does not learn in a few thousand steps (measured)."""
    settings: dict[str, Any] = {
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "base_dim": 16,
        "dim_mult": [1, 2, 2],
        "temperal_downsample": [True, True],
        "z_dim": LATENT_CHANNELS,
        "num_res_blocks": 1,
        "latents_mean": [0.0] * LATENT_CHANNELS,
        "latents_std": [1.0] * LATENT_CHANNELS,
    }
    vae = AutoencoderKLWan(**{**settings, **changes})
    with torch.no_grad():  # a posterior of standard deviation 0.05 from the start: with 1 the first steps see noise
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = -6
    return vae


def transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=64,
        freq_dim=64,
        ffn_dim=768,
        num_layers=6,
        rope_max_seq_len=64,
    )


def scheduler() -> UniPCMultistepScheduler:
    """The scheduler that Wan ships, at this model's own shift.

    Its chain ends in a step that matters: 16 steps leave a noise level of .12 to the last, 8 leave .22. (diffusers'
    Euler scheduler shifts its lowest sigma twice and would end at .004 whatever the number of steps, so that a gradient
    through the last step alone would train next to nothing.)
    """
    return UniPCMultistepScheduler(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
    )
