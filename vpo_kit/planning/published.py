"""Pipelines by hub id whose sizes are known here, so that they can be planned without a download.

The numbers are those of the published ``config.json`` files, which diffusers' conversion scripts also give: Wan 2.2's,
A14B and TI2V-5B, were held against ``scripts/convert_wan_to_diffusers.py`` of diffusers 58eb52c (network, autoencoder,
shift, boundary), HunyuanVideo 1.5's against its ``convert_hunyuan_video1_5_to_diffusers.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

Components = tuple[str, dict[str, Callable[[], Any]]]
"""The pipeline's class, and what makes its components: modules in float32 on whatever device or mode is active."""


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows one word: a plan needs the number of tokens, which is always padded to `length`."""
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def _wan(heads: int, layers: int, inner: int, experts: bool = False) -> Components:
    text = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)

    def network() -> Any:
        return diffusers.WanTransformer3DModel(num_attention_heads=heads, num_layers=layers, ffn_dim=inner)

    return "WanPipeline", {
        "tokenizer": lambda: tokenizer(512),
        "text_encoder": lambda: UMT5EncoderModel(text),
        "vae": lambda: diffusers.AutoencoderKLWan(),
        "transformer": network,
        "scheduler": lambda: diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **({"transformer_2": network, "boundary_ratio": lambda: 0.875} if experts else {}),
    }


def _wan22_5b() -> Components:
    """Wan 2.2's 5B, with an autoencoder of its own; the statistics of its latents, which no size depends on, are not
    the published ones.
    """
    vae = {
        "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
        "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    }  # fmt: skip
    kind, common = _wan(24, 30, 14336)
    return kind, {
        **common,
        "vae": lambda: diffusers.AutoencoderKLWan(**vae),
        "transformer": lambda: diffusers.WanTransformer3DModel(
            num_attention_heads=24, num_layers=30, ffn_dim=14336, in_channels=48, out_channels=48
        ),
        "scheduler": lambda: diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        "expand_timesteps": lambda: True,
    }


def _hunyuan15() -> Components:
    """HunyuanVideo 1.5 at 480p: its language model is Qwen2.5-VL 7B without eyes, its glyphs are read by ByT5 small, to
    which fonts and colours are added as tokens (here not: 1.5 thousand rows of 1472).
    """
    qwen = Qwen2_5_VLTextConfig(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4,
        rope_parameters={"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    )  # fmt: skip
    glyphs = T5Config(
        vocab_size=384, d_model=1472, d_kv=64, d_ff=3584, num_layers=12, num_heads=6, feed_forward_proj="gated-gelu"
    )
    return "HunyuanVideo15Pipeline", {
        "tokenizer": _qwen_tokenizer,
        "text_encoder": lambda: Qwen2_5_VLTextModel(qwen),
        "tokenizer_2": ByT5Tokenizer,
        "text_encoder_2": lambda: T5EncoderModel(glyphs),
        "vae": lambda: diffusers.AutoencoderKLHunyuanVideo15(),
        "transformer": lambda: diffusers.HunyuanVideo15Transformer3DModel(task_type="t2v"),
        "scheduler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        "guider": lambda: diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    }


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word, and the 108 of the template that are cut off."""
    found = tokenizer(1108)
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.chat_template = "{{ 'a ' * 108 }}{{ messages[-1]['content'] }}"
    return found


def _t5(length: int) -> dict[str, Callable[[], Any]]:
    config = T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    return {"tokenizer": lambda: tokenizer(length), "text_encoder": lambda: T5EncoderModel(config)}


def _ltx() -> Components:
    return "LTXPipeline", {
        **_t5(128),
        "vae": lambda: diffusers.AutoencoderKLLTXVideo(),
        "transformer": lambda: diffusers.LTXVideoTransformer3DModel(),
        "scheduler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
        ),
    }


def _cogvideox(heads: int, layers: int, rotary: bool, scale: float) -> Components:
    scheduler = diffusers.CogVideoXDPMScheduler if rotary else diffusers.CogVideoXDDIMScheduler
    return "CogVideoXPipeline", {
        **_t5(226),
        "vae": lambda: diffusers.AutoencoderKLCogVideoX(scaling_factor=scale),
        "transformer": lambda: diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=heads, num_layers=layers, use_rotary_positional_embeddings=rotary
        ),
        "scheduler": lambda: scheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=1.0 if rotary else 3.0,
            clip_sample=False,
        ),
    }


PUBLISHED: dict[str, Callable[[], Components]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": lambda: _wan(12, 30, 8960),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": lambda: _wan(40, 40, 13824),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": lambda: _wan(40, 40, 13824, experts=True),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": _wan22_5b,
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": _hunyuan15,
    "Lightricks/LTX-Video": _ltx,
    "THUDM/CogVideoX-2b": lambda: _cogvideox(30, 30, False, 1.15258426),
    "THUDM/CogVideoX-5b": lambda: _cogvideox(48, 42, True, 0.7),
}
