"""Rules that both formats of X-CLIP share.

X-CLIP's parts that are CLIP's have CLIP's names in both formats, but for transformers' norm before
the image tower, which CLIP alone spells `pre_layrnorm`. Projections are matrices that vectors are
multiplied by in the originals, Linear layers in transformers; only X-CLIP's of the patches is such
a matrix in both.
"""

from collections.abc import Callable, Sequence

from converters.mapping import Rule
from converters.rules import QKV, from_heads, linear, norm, to_heads_weight

PATCHES = "d c (t h) w -> t h w c d"
CLASS_TOKEN = "(a b d) -> a b d"
POSITIONS = "(a n) d -> a n d"


def blocks(
    layers: str,
    target: str,
    names: Sequence[str],
    attention: Callable[[str, str], list[Rule]],
    has_messages: bool = False,
) -> list[Rule]:
    """Returns the rules of a transformer; `names` are a layer's norms, attention and Linears."""
    block, blocks = f"{layers}.{{i}}", f"{target}/blocks"
    norm1, norm2, attn, fc1, fc2 = (f"{block}.{name}" for name in names)
    rules = [
        *norm(norm1, f"{blocks}/norm1"),
        *norm(norm2, f"{blocks}/norm2"),
        *attention(attn, f"{blocks}/attn"),
        *linear(fc1, f"{blocks}/mlp/fc1"),
        *linear(fc2, f"{blocks}/mlp/fc2"),
    ]
    if has_messages:
        rules += linear(f"{block}.message_fc", f"{blocks}/message_fc")
        rules += norm(f"{block}.message_ln", f"{blocks}/message_norm")
        rules += attention(f"{block}.message_attn", f"{blocks}/message_attn")
    return rules


def prompts(norm_name: str) -> list[Rule]:
    """Returns the rules of the prompts' generator; both formats name all but a norm alike."""
    layer, blocks = "prompts_generator.decoder.{i}", "prompts/blocks"
    attn = f"{layer}.cross_attn"
    return [
        Rule("prompts_generator.alpha", "prompts/alpha"),
        *norm(f"prompts_generator.{norm_name}", "prompts/norm"),
        *norm(f"{layer}.norm1", f"{blocks}/norm1"),
        *norm(f"{layer}.norm3", f"{blocks}/norm2"),
        *(to_heads_weight(f"{attn}.{name[0]}_proj", f"{blocks}/attn/{name}") for name in QKV),
        *from_heads(f"{attn}.proj", f"{blocks}/attn/out"),
        *linear(f"{layer}.mlp.0", f"{blocks}/mlp/fc1"),
        *linear(f"{layer}.mlp.3", f"{blocks}/mlp/fc2"),
    ]
