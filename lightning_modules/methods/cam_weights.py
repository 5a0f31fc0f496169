"""Class activation maps that weight the activations otherwise than Grad-CAM does, of the same gradient."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.methods.cam import ClassActivationMap


class GradCAMPlusPlus(ClassActivationMap):
    r"""Grad-CAM++, ``(N, 1, H, W)``, at least 0: positions that raise the target count, however few they are.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big), \quad
        w_k = \sum_{ij} \alpha^k_{ij} \, \mathrm{ReLU}(g^k_{ij}), \quad
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab} (g^k_{ij})^3}
        = \frac{1}{2 + g^k_{ij} \sum_{ab} A^k_{ab}}

    where ``g`` is the gradient of the target logit with respect to the layer's activations ``A``. It costs Grad-CAM's
    backward pass, which ends at the layer, and nothing beside Grad-CAM. The paper takes the exponential of the logit
    for the score, so its weights are ours times that exponential, one factor for the whole map, which is left out. It
    does not normalize alpha. Of the peers, pytorch-grad-cam adds 1e-6 to the denominator, which decides where gradients
    are small.

    Reference: Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional
    Networks", WACV 2018.
    """

    meaning = "Grad-CAM++. As Grad-CAM, but of several objects of the class each counts."

    @staticmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        denominator = 2 + gradient * activation.sum((2, 3), keepdim=True)
        # Zero only where the activations of a channel add up to less than nothing, which those of ReLUs never do.
        alpha = denominator.where(denominator != 0, 1).reciprocal()
        return (alpha * gradient.relu()).sum((2, 3), keepdim=True) * activation


class XGradCAM(ClassActivationMap):
    r"""XGrad-CAM, ``(N, 1, H, W)``, at least 0: gradients count as much as the activations at their positions.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
        \alpha_k = \sum_{ij} \frac{A^k_{ij}}{\sum_{ab} A^k_{ab}} \frac{\partial y}{\partial A^k_{ij}}

    It costs Grad-CAM's backward pass, which ends at the layer, and nothing beside Grad-CAM. A channel whose activations
    add up to 0 counts nothing. Where activations have both signs, as those of ViT have, such a sum may be near 0 and
    the weight large: the formula was made for ReLUs.

    Reference: Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", BMVC 2020.
    """

    meaning = "XGrad-CAM. As Grad-CAM, but what a channel is worth is judged where it responds."

    @staticmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        total = activation.sum((2, 3), keepdim=True)
        share = activation / total.where(total != 0, 1)
        return (share * gradient).sum((2, 3), keepdim=True).where(total != 0, 0) * activation


class HiResCAM(ClassActivationMap):
    r"""HiResCAM, ``(N, 1, H, W)``, at least 0: each activation counts by its own gradient, not by the channel's mean.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \frac{\partial y}{\partial A^k} \odot A^k\Big)

    It costs Grad-CAM's backward pass, which ends at the layer, and nothing beside Grad-CAM. Where one linear layer
    follows, the sum is what each position gives to the logit. The paper's formula leaves negative values; here, as in
    pytorch-grad-cam, they are cut off as Grad-CAM's are.

    Reference: Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", 2020.
    """

    meaning = "As Grad-CAM, but each place of a channel counts by what it does itself, not by the channel's mean."

    @staticmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient * activation
