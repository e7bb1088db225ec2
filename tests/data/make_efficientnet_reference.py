"""Makes `efficientnet_lite.npz`: what the reference implementation answers, ImageNet logits.

    pip install efficientnet-lite-pytorch==0.1.0 -e '.[train,pretrained]'
    python tests/data/make_efficientnet_reference.py

The file is committed, so that the test needs the weights alone. Needs torch.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

SIZES = (224, 160, 97)
"""One that is published, another one, and one whose maps have odd sides, which pad otherwise."""


def picture(size: int) -> npt.NDArray[np.float32]:
    """A pattern of integers 0..255, normalised without rounding: `float32 [1,3,size,size]`."""
    channel, y, x = np.indices((3, size, size))
    values = ((3 + channel) * y + (5 - channel) * x + x * y // (7 + channel)) % 256
    normalised: npt.NDArray[np.float32] = ((values[None] - 127) / 128).astype(np.float32)
    return normalised


def main() -> None:
    """Write the file."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    from catdog_edge.training.models.pretrained import PACKAGES

    answers = {}
    for arch in ("efficientnet_lite0", "efficientnet_lite2"):
        package, file = PACKAGES[arch]
        path = importlib.metadata.distribution(package).locate_file(file)
        weights = torch.load(str(path), weights_only=True)
        for size in SIZES:
            network = EfficientNet.from_name(arch.replace("_lite", "-lite"), image_size=size)
            network.load_state_dict(weights)
            with torch.inference_mode():
                answers[f"{arch}-{size}"] = network.eval()(torch.from_numpy(picture(size)))[0]
    target = Path(__file__).with_name("efficientnet_lite.npz")
    np.savez_compressed(target, **{name: logits.numpy() for name, logits in answers.items()})


if __name__ == "__main__":
    main()
