# %% [markdown]
# A tour of VGG Lens on its functional API, without a Trainer: a script, and a notebook in VS Code (or in Jupyter, with
# jupytext). It works offline; for ImageNet's VGG16, set WEIGHTS to "IMAGENET1K_V1" and IMAGE to a photo of yours.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from datamodules import Preprocess, decode_image, write_shapes
from lightning_modules import FGSM, ForwardPass, GradCAM, GuidedBackprop, GuidedGradCAM, SmoothGrad, load_network
from lightning_modules.figures.style import attribution_figure
from lightning_modules.synthesis import FourierImage, LogitMargin, RandomShift, Recipe, TotalVariation, maximize

WEIGHTS, IMAGE = "shapes", None  # or: "IMAGENET1K_V1", "my_photo.jpg"
OUT = Path("runs/tour")  # where the figures go

# %% A network from pixels in [0, 1] to logits; the normalization is inside.
network = load_network(weights=WEIGHTS)
if IMAGE is None:
    write_shapes(OUT / "shapes", n_train=0, n_val=8, n_pairs=0, seed=0)
    IMAGE = next((OUT / "shapes/val/crescent").iterdir())
picture = decode_image(Path(IMAGE))
preprocess = Preprocess(network.resize_size, network.input_size)
image = preprocess(picture)[None]  # (1, 3, H, W)

# %% Predict.
forward_pass = ForwardPass(network, image)  # of the predicted class; target=... explains another
top = forward_pass.probabilities[0].topk(5)
best = [(network.class_names[k], p) for p, k in zip(top.values.tolist(), top.indices.tolist())]
print("\n".join(f"{name}: {p:.1%}" for name, p in best))

# %% Four maps, from one forward pass and, but for SmoothGrad's 25, one backward pass.
methods = (GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad())
maps = {repr(method): method(forward_pass)[0] for method in methods}
view = preprocess.view(*picture.size)
figure = attribution_figure(np.array(picture), view, maps, best, title=str(IMAGE), subtitle=best[0][0])
figure.savefig(OUT / "maps.png")

# %% An attack: what must change by at most 4 of 255 levels for another answer?
adversarial = FGSM()(network, image, forward_pass.target, eps=4 / 255)
fooled = int(network(adversarial).argmax())
print(f"after FGSM, eps 4/255: {network.class_names[fooled]}")

# %% A synthesis: what does the network take for this class?
recipe = Recipe(FourierImage(), [TotalVariation()], [RandomShift(8)], steps=64, learning_rate=0.05, warm_up=0.5)
size = (network.input_size, network.input_size)
synthetic = maximize(network, LogitMargin(), forward_pass.target, recipe, size, keys=["tour"])
for name, pixels in {"original": image, "adversarial": adversarial, "synthetic": synthetic}.items():
    plt.imsave(OUT / f"{name}.png", pixels[0].detach().permute(1, 2, 0).numpy())
probability = network(synthetic).softmax(1)[0, forward_pass.target].item()
print(f"synthetic {best[0][0]}: {probability:.1%}; figures: {OUT}")
