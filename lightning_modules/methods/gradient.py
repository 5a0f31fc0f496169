"""Methods whose map is a gradient with respect to the pixels."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.gradients.rectifiers import check_guided_rule
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.networks.network import Network


class Saliency(AttributionMethod):
    """The gradient of the target logit with respect to the pixels, ``(N, 3, H, W)``, signed.

    The paper takes its magnitude and the maximum over the channels; here, as for all methods, the map is left signed.

    Reference: Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop.
    """

    meaning = "How much each pixel changes the score of the class."

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.input_gradient()


class InputXGradient(AttributionMethod):
    r"""Input times gradient, ``(N, 3, H, W)``, signed: what each pixel adds to a linear model of the target logit.

    .. math:: L = x \odot \nabla y(x)

    Pixels are in [0, 1], so black adds nothing. Peers multiply the pixels as they are after normalization, where the
    mean adds nothing. It costs Saliency's backward pass.

    Reference: Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation
    Differences", 2016.
    """

    meaning = "How much each pixel adds to the score: how bright it is, times how much it changes the score."

    sign = "signed"

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.images.detach() * forward_pass.input_gradient()


class GuidedBackprop(AttributionMethod):
    """Guided Backpropagation, ``(N, 3, H, W)``, signed: see :meth:`ForwardPass.guided_gradient`.

    Reference: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop.
    """

    meaning = (
        "Guided Backpropagation. Marks the pixels and edges that the network responds to. It is sharp, but hardly "
        "depends on the class."
    )

    def needs(self, network: Network) -> Needs:
        check_guided_rule(network)
        return Needs(guided_gradient=True)

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.guided_gradient()
