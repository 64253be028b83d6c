"""What is done with the pixels of a clip."""

from __future__ import annotations

import torch

from vpo_kit.video import motion
from vpo_kit.video.tensors import straight_through_clamp


def test_the_clamp_passes_every_pixels_gradient() -> None:
    video = torch.tensor([[-0.5, 0.0, 0.3, 1.0, 1.7]], requires_grad=True)
    found = straight_through_clamp(video)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.3, 1.0, 1.0]]))
    (gradient,) = torch.autograd.grad(found.pow(2).sum(), video)
    torch.testing.assert_close(gradient, 2 * found.detach())


def test_motion_is_the_median_change_between_frames() -> None:
    """Changes of .1, .1 and .8, and of .4 throughout; a flash is no motion, and a single frame has none."""
    levels = torch.tensor([[0.0, 0.1, 0.2, 1.0], [0.4, 0.0, 0.4, 0.0]])
    video = levels[:, :, None, None, None].expand(2, 4, 3, 4, 4)
    torch.testing.assert_close(motion(video), torch.tensor([0.1, 0.4]))
    assert motion(video[:, :1]).tolist() == [0, 0]
