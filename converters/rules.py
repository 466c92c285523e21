"""Rules of the layers that all families are made of, in PyTorch's files and in Flax trees.

PyTorch's names are joined with ".", and a Linear's weight is [outputs, inputs]; Flax trees are
joined with "/" and hold kernels as we do.
Axes: `o i` output and input features, `d` width, `n` heads, `h` head width, `s` of query, key and
value.
"""

from converters.mapping import Rule

QKV = ("query", "key", "value")


def linear(source: str, target: str, layout: str = "o i -> i o", bias: str = "") -> list[Rule]:
    """PyTorch's Linear; or, by another layout, a convolution or a matrix whose axes are split.

    Args:
        source, target: the layer in the file and here.
        layout, bias: of the weight and of the bias.
    """
    return [
        Rule(f"{source}.weight", f"{target}/kernel", layout),
        Rule(f"{source}.bias", f"{target}/bias", bias),
    ]


def patch_embed(source: str, target: str = "encoder/patch_embed") -> list[Rule]:
    """PyTorch's Conv3d over patches."""
    return linear(source, target, "d c t h w -> t h w c d")


def norm(source: str, target: str) -> list[Rule]:
    """PyTorch's LayerNorm."""
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def to_heads(source: str, target: str) -> list[Rule]:
    """PyTorch's Linear whose outputs are queries, keys or values."""
    return linear(source, target, "(n h) d -> d n h", "(n h) -> n h")


def to_heads_weight(source: str, target: str) -> Rule:
    """The weight alone of `to_heads`, where the biases are named apart or do not exist."""
    return to_heads(source, target)[0]


def from_heads(source: str, target: str) -> list[Rule]:
    """PyTorch's Linear whose inputs are the concatenated heads."""
    return linear(source, target, "d (n h) -> n h d")


def attention(source: str, target: str, out: str = "out_proj") -> list[Rule]:
    """Attention as transformers names it: q_proj, k_proj, v_proj and `out`."""
    rules = from_heads(f"{source}.{out}", f"{target}/out")
    for name in QKV:
        rules += to_heads(f"{source}.{name[0]}_proj", f"{target}/{name}")
    return rules


def fused_weight(source: str, target: str) -> Rule:
    """One matrix for query, key and value; `source` is its whole name."""
    return Rule(source, tuple(f"{target}/{name}/kernel" for name in QKV), "(s n h) d -> s d n h")


def fused_bias(source: str, target: str) -> Rule:
    """One bias for query, key and value; `source` is its whole name."""
    return Rule(source, tuple(f"{target}/{name}/bias" for name in QKV), "(s n h) -> s n h")


def flax_dense(source: str, target: str, layout: str = "") -> list[Rule]:
    """A kernel and a bias of a Flax tree."""
    return [
        Rule(f"{source}/kernel", f"{target}/kernel", layout),
        Rule(f"{source}/bias", f"{target}/bias"),
    ]


def flax_norm(source: str, target: str) -> list[Rule]:
    """LayerNorm of a Flax tree."""
    return [Rule(f"{source}/{name}", f"{target}/{name}") for name in ("scale", "bias")]


def flax_attention(source: str, target: str) -> list[Rule]:
    """MultiHeadDotProductAttention of a Flax tree."""
    names = (*QKV, "out")
    return [rule for name in names for rule in flax_dense(f"{source}/{name}", f"{target}/{name}")]
