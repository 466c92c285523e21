"""Rules that both formats share.

X-CLIP's parts that are CLIP's have CLIP's names in both homes, but for transformers' norm before
the image tower, which CLIP alone spells `pre_layrnorm`. Projections are matrices that vectors are
multiplied by in the originals, Linear layers in transformers; only X-CLIP's of the patches is such
a matrix in both.
"""

from converters.mapping import Rule


def pair(source: str, target: str, layout: str = "", bias: str = "") -> list[Rule]:
    return [
        Rule(f"{source}.weight", f"{target}/kernel", layout),
        Rule(f"{source}.bias", f"{target}/bias", bias),
    ]


def linear(source: str, target: str) -> list[Rule]:
    return pair(source, target, "o i -> i o")


def norm(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def prompts(generator: str, norm_name: str) -> list[Rule]:
    """Of what both homes call the same, but for the norm."""
    layer, blocks = f"{generator}.decoder.{{i}}", "prompts/blocks"
    return [
        Rule(f"{generator}.alpha", "prompts/alpha"),
        *norm(f"{generator}.{norm_name}", "prompts/norm"),
        *norm(f"{layer}.norm1", f"{blocks}/norm1"),
        *norm(f"{layer}.norm3", f"{blocks}/norm2"),
        *(
            Rule(
                f"{layer}.cross_attn.{name[0]}_proj.weight",
                f"{blocks}/attn/{name}/kernel",
                "(h k) d -> d h k",
            )
            for name in ("query", "key", "value")
        ),
        *pair(f"{layer}.cross_attn.proj", f"{blocks}/attn/out", "d (h k) -> h k d"),
        *linear(f"{layer}.mlp.0", f"{blocks}/mlp/fc1"),
        *linear(f"{layer}.mlp.3", f"{blocks}/mlp/fc2"),
    ]


NORM_PRE = "encoder/norm_pre"
