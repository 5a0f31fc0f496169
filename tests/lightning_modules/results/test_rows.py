from __future__ import annotations

import torch

from lightning_modules.results.rows import fingerprints


def test_the_same_pixels_have_the_same_fingerprint_and_others_another() -> None:
    images = torch.randint(0, 256, (6, 3, 9, 7)) / 255
    images[3] = images[0]
    images[4] = images[0].flip(2)  # the same pixels, elsewhere
    images[5] = images[0].where(torch.arange(7) != 6, images[0] * 0.99)
    found = fingerprints(images)
    assert found.dtype == torch.long
    assert (found >= 0).all()
    assert len(set(found.tolist())) == 5
    assert found[0] == found[3]
    # However they lie in the memory, in whatever batch, and though rounding moved them.
    assert torch.equal(found, fingerprints(images.contiguous(memory_format=torch.channels_last)))
    assert torch.equal(found[2:4], fingerprints(images[2:4] + 1e-7))
