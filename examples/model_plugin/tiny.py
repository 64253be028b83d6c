"""``python tiny.py FOLDER``: a pipeline in the real layout with random weights, small enough for tests."""

import sys

import diffusers

from vpo_kit.testing.families import t5


def build() -> diffusers.SanaVideoPipeline:
    return diffusers.SanaVideoPipeline(
        **t5(),
        vae=diffusers.AutoencoderKLWan(
            base_dim=8, z_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.1] * 8, latents_std=[0.5] * 8,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0),
        transformer=diffusers.SanaVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=32,
            rope_max_seq_len=32,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    build().save_pretrained(sys.argv[1])
