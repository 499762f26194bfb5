"""The layers that the graphs share: linear maps, norms, MLPs."""

from __future__ import annotations

from encoder.graph_net import Net
from encoder.weights import Weights

LAYER_NORM_EPSILON = 1e-5
#: Norms below it are not divided by: a zero vector stays zero.
NORM_EPSILON = 1e-6


def linear(net: Net, weights: Weights, name: str, x: str) -> str:
    """x W^T + b, in the type of x."""
    product = net("MatMul", x, net.weight(weights[f"{name}.weight"].T, f"{name}.weight", like=x))
    return net("Add", product, net.weight(weights[f"{name}.bias"], f"{name}.bias", like=x))


def layer_norm(net: Net, weights: Weights, name: str, x: str) -> str:
    gain, bias = (net.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias"))
    return net("LayerNormalization", x, gain, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)


def gelu(net: Net, x: str) -> str:
    return net("Gelu", x, approximate="tanh")


def unit(net: Net, x: str, length: float = 1.0) -> str:
    """Scale the last axis to `length`."""
    norm = net("Max", net("ReduceL2", x, net.i64(-1), keepdims=1), net.f32(NORM_EPSILON))
    if length != 1.0:
        norm = net("Mul", norm, net.f32(1 / length))
    return net("Div", x, norm)


def phi(net: Net, weights: Weights, name: str, x: str, length: float = 1.0) -> str:
    """PinFM's point-wise MLP with L2 norm, around a residual: unit(x + down(gelu(up(x)))) * length. In f32 in both forms."""
    with net.scope(name):
        inner = linear(net, weights, f"{name}.down", gelu(net, linear(net, weights, f"{name}.up", x)))
        return unit(net, net("Add", x, inner), length)


def mlp(net: Net, weights: Weights, block: str, x: str) -> str:
    """x + MLP(norm(x))."""
    with net.scope("mlp"):
        normed = net.narrow(layer_norm(net, weights, f"{block}.norm_mlp", x))
        inner = gelu(net, linear(net, weights, f"{block}.up", normed))
        return net("Add", x, net.widen(linear(net, weights, f"{block}.down", inner)))
