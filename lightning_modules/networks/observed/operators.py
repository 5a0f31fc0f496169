"""Which of PyTorch's operators are activations, by the names that they leave in a graph."""

from __future__ import annotations

ACTIVATIONS = {
    # name of the operator: everyday name, where it is another one
    "Celu": "CELU",
    "Elu": "ELU",
    "Gelu": "GELU",
    "Glu": "GLU",
    "LeakyRelu": "LeakyReLU",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "Silu": "SiLU",
    # With a bound that no rectifier has. ``maximum`` of two tensors may be a leaky ReLU written out.
    "ClampMin": "Clamp",
    "ClampMax": "Clamp",
    "Fmax": "Maximum",
    "Fmin": "Minimum",
} | {
    name: name
    for name in (
        *("Clamp", "Cos", "Erf", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LogSigmoid", "Maximum"),
        *("Minimum", "Mish", "Sigmoid", "Sin", "Softplus", "Softshrink", "Tanh", "Threshold"),
    )
}
"""Everyday names of activations, by the name of their operator."""

IN_STATISTICS = {"Exp": "Exp", "Pow": "Pow"}
"""Operators that are activations too, unless a sum or a mean follows, as in a softmax or a norm written out."""

SUMS = frozenset({"AdaptiveAvgPool2D", "AvgPool2D", "LinalgVectorNorm", "Mean", "Norm", "Sum"})

REENTRANT = "a reentrant checkpoint"

HIDDEN = {
    "CopySlices": "an operation in place on a view",
    "DifferentiableGraph": "optimized TorchScript",
    "CompiledFunction": "torch.compile",
    "CheckpointFunction": REENTRANT,
    "Where": "torch.where",
    "Abs": "abs",
}
"""What hides the operators inside, or may be a part of a rectifier written out, in words."""

_LINEAR = """
    AccumulateGrad AdaptiveAvgPool2D AdaptiveAvgPool3D Add Addbmm Addcdiv Addcmul Addmm Addmv Addr AffineGridGenerator
    Alias AsStrided AvgPool2D AvgPool3D Baddbmm BackwardHookFunction Bmm Cat ChannelShuffle Chunk Clone Col2Im Conj
    ConstantPadNd ConvDepthwise2D Convolution Copy CudnnConvolution CudnnConvolutionTranspose Cumsum DiagEmbed Diagonal
    Div Dot Expand FftC2C FftC2R FftR2C Flip FusedDropout Gather GridSampler2D Im2Col Index IndexSelect Lerp LiftFresh
    Linear Matmul Mean MiopenConvolution MkldnnConvolution MkldnnLinear MkldnnReshape Mm MpsConvolution Mul Mv
    NarrowCopy NativeDropout Neg NegView Permute PinMemory PixelShuffle PixelUnshuffle ReflectionPad1D ReflectionPad2D
    Repeat ReplicationPad1D ReplicationPad2D ReshapeAlias ReshapeCopy Roll Rot90 Rsub Select Slice SlowConv2D
    SlowConvDilated2D SlowConvTranspose2D Split SplitWithSizes Squeeze Stack Sub Sum T Take ToCopy ToDense ToMkldnn
    Transpose Tril Triu Unbind Unfold UnsafeIndex UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze
    UpsampleBicubic2D UpsampleBicubic2DAa UpsampleBilinear2D UpsampleBilinear2DAa UpsampleLinear1D UpsampleNearest1D
    UpsampleNearest2D UpsampleNearestExact2D View ViewAsComplex ViewAsReal
"""
"""Linear in what they are given, or they only move it."""

_NORMS = """
    BatchNormNoUpdate BatchNormWithUpdate CudnnBatchNorm FusedRmsNorm LinalgVectorNorm MiopenBatchNorm NativeBatchNorm
    NativeBatchNormLegit NativeBatchNormLegitNoTraining NativeGroupNorm NativeLayerNorm Norm Reciprocal RmsNorm Rsqrt
    Sqrt Std StdMean Var VarMean
"""
"""Norms, and what they are written out by."""

_POOLING = """
    AdaptiveMaxPool2D AdaptiveMaxPool3D Amax Amin CudnnAttention EfficientAttention FlashAttention FractionalMaxPool2D
    Log LogSoftmax Logsumexp MaskedSoftmax Max MaxPool2D MaxPool2DWithIndices MaxPool3DWithIndices Median Min
    MkldnnMaxPool2D SafeSoftmax ScaledDotProductCudnnAttention ScaledDotProductEfficientAttention
    ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu ScaledDotProductFusedAttentionOverrideable
    Softmax Sort Topk
"""
"""Softmax, attention, and pooling."""

NO_ACTIVATIONS = frozenset((_LINEAR + _NORMS + _POOLING).split())
"""Operators that are known to be no activations. What stands neither here nor above is unknown."""

SELU_ALPHA = 1.6732632423543772
LARGEST_GUARD = 1e-3
"""A minimum above 0 that is this small keeps a division or a root from failing, as in ``normalize``."""
