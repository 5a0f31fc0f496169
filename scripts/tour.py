# %% [markdown]
# A tour of VGG Lens on its functional API, without a Trainer: a script, and a notebook in VS Code (or in Jupyter, with
# jupytext). It works offline; for ImageNet's VGG16, set WEIGHTS to "IMAGENET1K_V1" and IMAGE to a photo of yours.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from datamodules import Preprocess, decode_image, write_shapes
from lightning_modules import FGSM, GradCAM, GuidedBackprop, GuidedGradCAM, SmoothGrad, explain, load_network
from lightning_modules.figures.attribution import attribution_figure
from lightning_modules.running import show_errors_plainly
from lightning_modules.synthesis import FourierImage, LogitMargin, RandomShift, Recipe, TotalVariation, maximize

WEIGHTS, IMAGE = "shapes", None  # or: "IMAGENET1K_V1", "my_photo.jpg"
OUT = Path("runs/tour")  # where the figures go
show_errors_plainly()  # of a script; a notebook has its own way

# %% A network from pixels in [0, 1] to logits; the normalization is inside.
network = load_network(weights=WEIGHTS)
if IMAGE is None:
    write_shapes(OUT / "shapes", n_train=0, n_val=8, n_pairs=0, seed=0)
    IMAGE = next((OUT / "shapes/val/crescent").iterdir())
picture = decode_image(Path(IMAGE))
preprocess = Preprocess(network.resize_size, network.input_size, network.interpolation)
image = preprocess(picture)[None]  # (1, 3, H, W)

# %% Four maps of the predicted class (target=... explains another), from one forward pass; and what is predicted.
maps = explain(network, image, [GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad()])
forward_pass = maps.forward_pass
top = forward_pass.probabilities[0].topk(5)
best = [(network.class_names[k], p) for p, k in zip(top.values.tolist(), top.indices.tolist())]
print("\n".join(f"{name}: {p:.1%}" for name, p in best))

# %% Look at them.
view = preprocess.view(*picture.size)
of_image = {name: of_batch[0] for name, of_batch in maps.items()}
figure = attribution_figure(np.array(picture), view, of_image, best, title=str(IMAGE), subtitle=best[0][0])
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
