"""Facts that ViViT's files leave open: the clip of a position table, factorisation and pooling.

They come from the options, from config.json, or are assumed with a note.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters import Options, huggingface
from vidjax.errors import UserError
from vidjax.models.vivit import sampled_indices

FRAMES, SIZE = 32, 224  # of every release


@dataclass(frozen=True)
class Clip:
    """The clip that a model takes: the token grid of its position table, and the pixels."""

    grid: tuple[int, int, int]
    frames: int
    size: int


def check(model: Mapping[str, Any], options: Options) -> None:
    """Raises UserError if the options contradict what the file tells."""
    given, found, token = options.factorisation, model["factorisation"], model["pool"] == "token"
    alike = {given, found} <= {"joint", "dot_product"} and not token
    if given not in (None, found) and not alike:
        raise UserError(
            f"--factorisation={given}, but the file's tensors are those of {found!r}"
            + (" with a class token" if token else "")
        )
    if options.pool and token:
        raise UserError(f"--pool={options.pool}, but the file has a class token; leave it out")
    if options.attention_order and found != "self_attention":
        raise UserError(
            f"--attention_order is about factorisation self_attention, and the file's is {found!r}"
        )


def apply(model: dict[str, Any], options: Options, image: bool, notes: list[str]) -> None:
    """Adds the options to the model, or what is assumed without them."""
    check(model, options)
    if model["pool"] != "token" and not options.pool:
        notes.append("no class token: the mean over tokens is assumed (--pool=)")
    if model["factorisation"] == "self_attention":
        model["attention_order"] = options.attention_order or "time_space"
        if not options.attention_order:
            notes.append(
                "attention over time, then over space, is assumed, Scenic's default; the paper "
                "describes the other order (--attention_order=)"
            )
    if model["factorisation"] == "joint" and model["pool"] != "token":
        model["factorisation"] = options.factorisation or "joint"
        if not (options.factorisation or image):
            notes.append(
                "joint attention is assumed; files of the factorised dot-product model look the "
                "same (--factorisation=dot_product)"
            )


def _side(tokens: int, patch: Sequence[int]) -> int | None:
    """The side in pixels of a square frame with this many patches; None if there is none."""
    _, h, w = patch
    side = math.isqrt(tokens * h * w)
    return side if side and not (side % h or side % w) and side * side == tokens * h * w else None


def _fits(tokens: int, patch: Sequence[int]) -> str:
    """The clips of square frames that a position table may be made for, in flags."""
    counts = (n for n in range(1, tokens + 1) if tokens % n == 0)
    fits = [(n * patch[0], _side(tokens // n, patch)) for n in counts]
    words = [f"--frames={frames} --size={side}" for frames, side in fits if side]
    return " or ".join(words) or "no square frames at all"


def whole_clip(
    tokens: int, patch: Sequence[int], frames: int | None, size: int | None, notes: list[str]
) -> Clip:
    """The clip of a joint position table; either number may be left to follow from the other."""
    t, h, w = patch
    if frames and not size:
        size = _side(tokens // (frames // t or 1), patch)
    elif size and not frames:
        frames = t * (tokens // ((size // h) * (size // w) or 1))
    elif not (size or frames):
        frames, size = FRAMES, SIZE
        notes.append(f"clips of {frames} frames, {size} pixels are assumed (--frames=, --size=)")
    grid = (frames // t, (size or 0) // h, (size or 0) // w)
    if size:
        huggingface.note_rest("frames", frames, t, notes)
        huggingface.note_rest("pixels", size, h, notes)
    if math.prod(grid) != tokens:
        asked = f"{frames} frames" + (f" of {size} pixels" if size else "")
        raise UserError(
            f"the position table is for {tokens} patches of {t}x{h}x{w}, which {asked} do not "
            f"have; it fits {_fits(tokens, patch)}"
        )
    return Clip(grid, frames, size)


def sliced_clip(
    tokens: int, slices: int | None, patch: Sequence[int], options: Options, notes: list[str]
) -> Clip:
    """The clip of a factorised encoder: one table tells the size, the other the slices."""
    t, h, w = patch
    size = _side(tokens, patch)
    if size is None or options.size not in (None, size):
        asked = f"--size={options.size}" if size else "square frames"
        raise UserError(
            f"the spatial position table is for {tokens} patches of {h}x{w}, which {asked} does "
            f"not fit; it fits {f'--size={size}' if size else 'no square frames'}"
        )
    # With uniform frame sampling, of 2-D patches, a clip may have any number of frames.
    frames = slices * t if slices and t > 1 else None
    if frames and options.frames not in (None, frames):
        raise UserError(
            f"the temporal position table is for {slices} slices of {t} frames, which "
            f"--frames={options.frames} does not fit; it fits --frames={frames}"
        )
    frames = frames or options.frames or _assumed(FRAMES, notes)
    return Clip((slices or frames // t, size // h, size // w), frames, size)


def flat_clip(
    tokens: int, patch: Sequence[int], is_image: bool, options: Options, notes: list[str]
) -> Clip:
    """The clip of 2-D patches in one table: one frame, or frames sampled from a video.

    Args:
        is_image: whether the file is known to hold an image model if it may.
    """
    _, h, w = patch
    side = _side(tokens, patch)
    size = options.size or SIZE
    count, rest = divmod(tokens, (size // h) * (size // w) or tokens + 1)
    image = side is not None and options.frames in (None, 1) and options.size in (None, side)
    video = not rest and count > 1 and (options.frames or max(FRAMES, count)) >= count
    if image and video and not is_image:
        raise UserError(
            f"the position table is for {tokens} patches of {h}x{w}: either of one image of {side} "
            f"pixels (--frames=1), or of {count} frames of {size} pixels, sampled from a clip "
            f"(--frames={FRAMES})"
        )
    if image:
        return Clip((1, side // h, side // w), 1, side)
    if not video:
        raise UserError(
            f"the position table is for {tokens} patches of {h}x{w}, which --frames="
            f"{options.frames or FRAMES} --size={size} does not fit; it fits "
            f"{_fits(tokens, patch)}"
        )
    frames = options.frames or _assumed(max(FRAMES, count), notes)
    return Clip((count, size // h, size // w), frames, size)


def _assumed(frames: int, notes: list[str]) -> int:
    notes.append(f"clips of {frames} frames are assumed (--frames=)")
    return frames


def sampled_frames(clip: Clip, notes: list[str]) -> int:
    """Returns the field with which as many frames are looked at as the table has slices.

    Raises:
        UserError: there is none for clips of so many frames.
    """
    wanted = clip.grid[0]
    fits = [n for n in (wanted, wanted - 1) if len(sampled_indices(clip.frames, n)) == wanted]
    if not fits:
        raise UserError(
            f"Scenic never takes {wanted} frames, for which the position table is made, evenly "
            f"from a clip of {clip.frames}; give the frames of its training's clips as --frames=..."
        )
    indices = ", ".join(map(str, sampled_indices(clip.frames, fits[0])))
    notes.append(
        f"2-D patches: {wanted} frames, evenly spread over a clip of {clip.frames}, are looked at "
        f"(uniform frame sampling): {indices}"
    )
    return fits[0]
