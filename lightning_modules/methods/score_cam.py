"""Score-CAM: a class activation map without gradients, of what each channel shows of the image."""

from __future__ import annotations

from torch import Tensor

from datamodules.text import Text
from lightning_modules.errors import check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import channel_maps, on_pixels, sign_of
from lightning_modules.methods.maps import Sign
from lightning_modules.methods.variants import at_variants, shared_batches
from lightning_modules.networks.network import Network


class ScoreCAM(AttributionMethod):
    r"""Score-CAM, ``(N, 1, H, W)``, at least 0: a channel counts by the logit of what it shows of the image.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
        \alpha = \mathrm{softmax}_k\big(y(x \odot H^k)\big), \quad
        H^k = \frac{U(A^k) - \min U(A^k)}{\max U(A^k) - \min U(A^k)}

    where ``U`` brings activations to the size of the image, bilinearly. It costs a forward pass for each channel of the
    layer, 512 in VGG16. What is hidden has the mean that the network subtracts. A channel that is the same everywhere
    shows nothing. Peers differ from the paper: pytorch-grad-cam's ``U`` aligns the corners, torch-cam enlarges after it
    has normalized; the authors' program weights by probabilities, without the softmax over channels that the paper has.

    Args:
        layer: Name of the layer to look at, as for GradCAM. null = the network's own target layer.
        max_batch: Most masked images in one pass. null = as many as the batch has, at least 32.
        rectify: Whether what is negative is cut off, as in the paper. Activations of ReLUs leave nothing negative.

    Raises:
        InputError: If ``max_batch`` is below 1.

    Reference: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    workshops 2020.
    """

    meaning = "Score-CAM. As Grad-CAM, but a channel is worth what the network says of the part that it shows."

    sign: Sign = "positive"

    def __init__(self, layer: Text | None = None, max_batch: int | None = None, rectify: bool = True) -> None:
        check_at_least_one(max_batch=max_batch)
        self.layer = layer
        self.rectify = rectify
        self.sign = sign_of(rectify)
        self.max_batch = max_batch

    def needs(self, network: Network) -> Needs:
        return Needs(activations={network.target_layer_for(type(self).__name__, self.layer)})

    def n_passes(self, network: Network) -> int:
        return network.layer_channels.get(network.target_layer_for(type(self).__name__, self.layer), 0)

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images, mean = forward_pass.images.detach(), forward_pass.network.mean_pixel
        activation = channel_maps(forward_pass, self.layer)
        scores = activation.new_empty(activation.shape[:2])
        for part, channels in shared_batches(len(images), activation.shape[1], self.max_batch):
            shown = on_pixels(activation[part, channels], forward_pass).to(images.dtype).transpose(0, 1)[:, :, None]
            least, most = shown.amin((3, 4), keepdim=True), shown.amax((3, 4), keepdim=True)
            masks = (shown - least) / (most - least).where(most > least, 1)
            logits = at_variants(forward_pass, mean + masks * (images[part] - mean), part).target_logit
            scores[part, channels] = logits.unflatten(0, masks.shape[:2]).T.to(scores.dtype)
        weights = scores.softmax(1)[:, :, None, None]
        total = (weights * activation).sum(1, keepdim=True)
        return on_pixels(total.relu() if self.rectify else total, forward_pass)
