"""Tiny pipelines of every supported family, random weights in the real layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import transformers
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers import models as token_models
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from vpo_kit.sprites import world
from vpo_kit.sprites.build import components

WORDS = sorted({word for held in (False, True) for s in world.scenes(held_out=held) for word in s.caption.split()})
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A builder, a small size that fits, and attributes of the pipeline that are made smaller to be fast."""

    build: Callable[[], Any]
    frames: int = 9
    size: int = 32
    attributes: dict[str, int] = field(default_factory=dict)


def t5() -> dict[str, Any]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0), *((f"▁{word}", -1.0) for word in WORDS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=16)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    return {"tokenizer": tokenizer, "text_encoder": T5EncoderModel(config)}


def clip(width: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    tokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, projection_dim=width, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=4, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return tokenizer, CLIPTextModel(config)


def words(length: int, **more: Any) -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer for the language models whose templates come before the prompt."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<unk>", *WORDS])}
    backend = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    # with line ends: Llava's template is then as long as by the real tokenizer, and its picture has its place
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]+"), "removed", invert=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", padding_side="right",
        model_max_length=length, **more,
    )  # fmt: skip


def eye(size: int) -> dict[str, Any]:
    """A tiny CLIP that looks at pictures, and what prepares them for it."""
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=size, patch_size=8
    )
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)
    return {"image_encoder": transformers.CLIPVisionModel(config), "image_processor": processor}


def wan(pictures: int | None = None, more: int = 0, **config: Any) -> Any:
    """`pictures` is None for text alone, else how many CLIP is shown; `more` is the channels beside the latents."""
    seen = {"image_dim": 16, "added_kv_proj_dim": 24} if pictures else {}
    tokens = {"pos_embed_seq_len": 2 * (4 * 4 + 1)} if pictures == 2 else {}

    def network() -> diffusers.WanTransformer3DModel:
        return diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=8 + more, out_channels=8,
            text_dim=64, freq_dim=32, ffn_dim=48, num_layers=2, rope_max_seq_len=32, **seen, **tokens,
        )  # fmt: skip

    tokenizer = components.tokenizer()
    if pictures:
        tokenizer.model_max_length = 512  # the network takes what comes before the last 512 tokens for pictures
    kind = diffusers.WanPipeline if pictures is None else diffusers.WanImageToVideoPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=components.text_encoder(len(tokenizer)),
        vae=components.autoencoder(latents_mean=[0.1] * 8, latents_std=[0.5] * 8),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=network(),
        transformer_2=network() if "boundary_ratio" in config else None,
        **(eye(32) if pictures else {}),
        **config,
    )


def skyreels() -> Any:
    tokenizer = components.tokenizer()
    return diffusers.SkyReelsV2Pipeline(
        tokenizer=tokenizer,
        text_encoder=components.text_encoder(len(tokenizer)),
        vae=diffusers.AutoencoderKLWan(  # of Wan 2.1, which has no patches: this pipeline counts its halvings
            base_dim=8, z_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.1] * 8, latents_std=[0.5] * 8,
        ),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
        ),
        transformer=diffusers.SkyReelsV2Transformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=8, out_channels=8,
            text_dim=64, freq_dim=32, ffn_dim=48, num_layers=2, rope_max_seq_len=32,
        ),
    )  # fmt: skip


def ltx(timed: bool = False, conditioned: bool = False, pictured: bool = False, noisy: bool = False) -> Any:
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, timestep_conditioning=timed,
        decoder_inject_noise=(noisy,) * 5,
    )  # fmt: skip
    for name, weight in vae.decoder.named_parameters():
        if "per_channel_scale" in name:
            weight.data.fill_(0.1)
    vae.latents_mean.fill_(0.1)
    vae.latents_std.fill_(0.5)
    moving = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "shift_terminal": 0.1}
    chain = {} if conditioned else {"use_dynamic_shifting": True, **moving}
    kind = diffusers.LTXImageToVideoPipeline if pictured else diffusers.LTXPipeline
    return (diffusers.LTXConditionPipeline if conditioned else kind)(
        **t5(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(**chain),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
            num_layers=2, caption_channels=32,
        ),
    )  # fmt: skip


def cogvideox(rotary: bool, patch_size_t: int | None = None, pictured: bool = False, **config: Any) -> Any:
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8,) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2, scaling_factor=0.7,
        invert_scale_latents=pictured and patch_size_t is None,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDPMScheduler if rotary else diffusers.CogVideoXDDIMScheduler
    return (diffusers.CogVideoXImageToVideoPipeline if pictured else diffusers.CogVideoXPipeline)(
        **t5(),
        vae=vae,
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4 + 4 * pictured, out_channels=4,
            time_embed_dim=8, text_embed_dim=32, num_layers=2, sample_width=4, sample_height=4, sample_frames=9,
            max_text_seq_length=16, use_rotary_positional_embeddings=rotary, patch_size_t=patch_size_t,
            patch_bias=patch_size_t is None, **config,
        ),
        scheduler=scheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
            snr_shift_scale=1.0 if rotary else 3.0, clip_sample=False,
        ),
    )  # fmt: skip


def hunyuan(guidance_embeds: bool = True, pictured: bool = False) -> Any:
    clip_tokenizer, clip_encoder = clip(8)
    tokenizer = words(460 if pictured else 351, **({"extra_special_tokens": MARKS} if pictured else {}))
    language = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=4, pad_token_id=0,
    )  # fmt: skip
    kind = diffusers.HunyuanVideoImageToVideoPipeline if pictured else diffusers.HunyuanVideoPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=llava(language, tokenizer) if pictured else transformers.LlamaModel(language),
        tokenizer_2=clip_tokenizer,
        text_encoder_2=clip_encoder,
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4), guidance_embeds=guidance_embeds,
            image_condition_type="token_replace" if pictured else None,
        ),
        **({"image_processor": transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=48)}
           if pictured else {}),
    )  # fmt: skip


MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"]


def llava(language: Any, tokenizer: Any) -> transformers.LlavaForConditionalGeneration:
    """A tiny Llava, whose CLIP sees as many patches as the real one's."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=2
    )
    marked = tokenizer.convert_tokens_to_ids("<image>")
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=language, image_token_index=marked, pad_token_id=0)
    )


def siglip(width: int) -> dict[str, Any]:
    """A tiny SigLIP that looks at pictures, and what prepares them for it."""
    config = transformers.SiglipVisionConfig(
        hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return {"image_encoder": transformers.SiglipVisionModel(config), "feature_extractor": processor}


def hunyuan15(pictured: bool = False) -> Any:
    # as long as the real template's beginning, which the pipeline cuts off
    template = "{{ 'a ' * 108 }}{{ messages[-1]['content'] }}"
    tokenizer = words(1108, chat_template=template)
    kind = diffusers.HunyuanVideo15ImageToVideoPipeline if pictured else diffusers.HunyuanVideo15Pipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=transformers.Qwen2_5_VLTextModel(
            transformers.Qwen2_5_VLTextConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, bos_token_id=0, eos_token_id=0,
                rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
            )
        ),
        tokenizer_2=transformers.ByT5Tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8,) * 5, layers_per_block=1, scaling_factor=0.5
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
            num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=16, image_embed_dim=8,
            rope_axes_dim=(2, 2, 4), target_size=32, task_type="i2v" if pictured else "t2v",
        ),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
        **(siglip(8) if pictured else {}),
    )  # fmt: skip


def mochi() -> Any:
    return diffusers.MochiPipeline(
        **t5(),
        vae=diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1,) * 5
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        transformer=diffusers.MochiTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, text_embed_dim=32,
            time_embed_dim=4, max_sequence_length=16,
        ),
        force_zeros_for_empty_prompt=True,
    )  # fmt: skip


def image_autoencoder() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2, scaling_factor=0.18215,
    )  # fmt: skip


def ddim() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def modelscope() -> Any:
    tokenizer, text_encoder = clip(16)
    return diffusers.TextToVideoSDPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=image_autoencoder(),
        scheduler=ddim(),
        unet=diffusers.UNet3DConditionModel(
            block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
            norm_num_groups=2, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        ),
    )  # fmt: skip


def animatediff() -> Any:
    tokenizer, text_encoder = clip(16)
    return diffusers.AnimateDiffPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=image_autoencoder(),
        scheduler=ddim(),
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
            norm_num_groups=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        motion_adapter=diffusers.MotionAdapter(
            block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=2,
            motion_num_attention_heads=2, motion_max_seq_length=16,
        ),
    )  # fmt: skip


SHORT = {"tokenizer_max_length": 24, "tokenizer_2_max_length": 16, "vision_num_semantic_tokens": 8}
FAMILIES = {
    "wan2.1": Family(build=wan),
    "wan2.2-5b": Family(build=lambda: wan(expand_timesteps=True)),
    "wan2.2-a14b": Family(build=lambda: wan(boundary_ratio=0.875)),
    "wan2.1-i2v": Family(build=lambda: wan(1, 12)),
    "wan2.1-flf2v": Family(build=lambda: wan(2, 12)),
    "wan2.2-i2v-a14b": Family(build=lambda: wan(0, 12, boundary_ratio=0.9)),
    "wan2.2-5b-i2v": Family(build=lambda: wan(0, expand_timesteps=True)),
    "skyreels2": Family(build=skyreels),
    "ltx": Family(build=ltx, frames=17, size=64),
    "ltx0.9.1": Family(build=lambda: ltx(timed=True), frames=17, size=64),
    "ltx0.9.5": Family(build=lambda: ltx(timed=True, conditioned=True), frames=17, size=64),
    "ltx-i2v": Family(build=lambda: ltx(pictured=True), frames=17, size=64),
    "cogvideox-2b": Family(build=lambda: cogvideox(rotary=False)),
    "cogvideox-5b": Family(build=lambda: cogvideox(rotary=True)),
    "cogvideox-5b-i2v": Family(build=lambda: cogvideox(True, pictured=True, use_learned_positional_embeddings=True)),
    "cogvideox1.5": Family(build=lambda: cogvideox(True, patch_size_t=2)),
    "cogvideox1.5-i2v": Family(build=lambda: cogvideox(True, patch_size_t=2, pictured=True, ofs_embed_dim=8)),
    "hunyuan": Family(build=hunyuan),
    "hunyuan-undistilled": Family(build=lambda: hunyuan(guidance_embeds=False)),
    "hunyuan-i2v": Family(build=lambda: hunyuan(pictured=True)),
    "hunyuan1.5": Family(build=hunyuan15, attributes=SHORT),
    "hunyuan1.5-i2v": Family(build=lambda: hunyuan15(pictured=True), attributes=SHORT),
    "mochi": Family(build=mochi, frames=13),
    "modelscope": Family(build=modelscope, frames=4),
    "animatediff": Family(build=animatediff, frames=4),
}
