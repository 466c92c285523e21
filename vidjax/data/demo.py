"""Makes a small labelled set of H.264 videos on which everything can be tried.

A ball with a white and a coloured half slides, turns or swells before a still, smooth background;
the motion is the class. A single frame cannot tell: the ball may be anywhere and at any angle, what
leaves at one side comes in at the other, and its size runs through a range and starts again, so a
frame has the same distribution in every class. It is large and lit from its front, so that a hidden
patch can be guessed from the visible ones.

Classes come in pairs, one the other played backwards; for models that give several answers at once
there are lists with two labels for each clip, what moves how and in which direction.

For models of video and text there is a second set: one shape of one of eight colours, which moves
or changes in one of eight ways, and sentences that say both: "a red shape sliding left". Places,
sizes and speeds overlap, so that no frame alone tells what happens. It is easier to learn than the
first set: whatever happens, it goes on from the first frame to the last.

A third set is for recognising classes that no training video shows, by their names: the shape moves
in one of four ways and changes in one of four at once, "sliding left and growing", and of the 16
classes 12 are for training and the other 4 for validation. Each word of a name is in three training
classes and in one of validation. Whatever does not happen stands still at a random moment of
happening, so that a frame taken at any time has the same distribution in every class.

    python -m vidjax.data.demo FOLDER [--captions|--unseen]
"""

import colorsys
import concurrent.futures
import csv
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
from absl import flags

from vidjax import files
from vidjax.errors import UserError, run_main
from vidjax.tokenizers import train_clip_tokenizer, train_tokenizer

CLASSES = (
    "sliding left",
    "sliding right",
    "sliding up",
    "sliding down",
    "turning counterclockwise",
    "turning clockwise",
    "shrinking",
    "growing",
)
EVENTS = (
    "sliding left",
    "sliding right",
    "sliding up",
    "sliding down",
    "shrinking",
    "growing",
    "vanishing",
    "appearing",
)
MOTIONS = ("sliding sideways", "sliding vertically", "turning", "changing size")
DIRECTIONS = ("left, up, counterclockwise or smaller", "right, down, clockwise or larger")
COLOURS = {  # RGB
    "red": (1.0, 0.08, 0.08),
    "orange": (1.0, 0.5, 0.0),
    "yellow": (1.0, 0.95, 0.1),
    "green": (0.1, 0.85, 0.1),
    "cyan": (0.1, 0.95, 1.0),
    "blue": (0.12, 0.2, 1.0),
    "purple": (0.6, 0.15, 1.0),
    "pink": (1.0, 0.5, 0.85),
}
CAPTIONS = (
    "a {colour} shape {event}",
    "a video of a {colour} shape {event}",
    "a shape of {colour} colour {event}",
    "{event}: a {colour} shape",
    "here a {colour} shape is {event}",
)
_JOINED = tuple(f"{move} and {change}" for move in EVENTS[:4] for change in EVENTS[4:])
# Each move and each change once, and two pairs of opposites: who does not see the order of the
# frames gets half of them right at best.
UNSEEN = _JOINED[::5]
SEEN = tuple(name for name in _JOINED if name not in UNSEEN)
# Where the lists of the dataset of a name are in its folder.
LISTS = {
    "demo": "{split}.csv",
    "demo_pairs": "pairs/{split}.csv",
    "demo_captions": "{split}.csv",
    "demo_unseen": "{split}/list.csv",
}
# Default numbers of clips for training and validation, and what demo.json says besides.
_SETS = {
    "demo": (512, 128, {"version": 3}),
    "demo_captions": (512, 64, {"set": "captions", "version": 3}),
    "demo_unseen": (768, 96, {"set": "unseen", "version": 1}),
}
_TOKENIZERS = {"sentencepiece": "tokenizer.model", "clip": "tokenizer.json"}
_FPS = 12
_RADIUS = 0.24, 0.375  # of the ball, smallest and largest, as a share of the picture
_CLIP_VOCAB = 768  # 514 ids and enough merges for a token a word
_LIGHT = 80  # difference between the top and the bottom of a picture, in levels
_WAVES = (12, 0.5), (6, 1.0), (5, 2.0)  # amplitude in levels, periods in a picture


def make(
    folder: str | os.PathLike,
    name: str = "demo",
    *,
    num_train: int | None = None,
    num_val: int | None = None,
    size: int = 64,
    frames: int = 24,
    seed: int = 0,
) -> str:
    """Makes a demo set, or reuses the one that is there; the same arguments give the same files.

    A set of an older version, otherwise made with the same arguments, is replaced.

    Args:
        folder: gets clips/*.mp4 and lists with relative paths. It is made beside and renamed when
            complete, so an unfinished one never has the name.
        name: of the set:
            "demo": train.csv and val.csv (`path,label`) with classes.txt, and the same in pairs/
                for two labels (`path,motion,direction`).
            "demo_captions": train.csv and val.csv (`path,label,caption`), where the label is the
                event, classes.txt, and for the captions tokenizer.model and, of CLIP's kind,
                tokenizer.json. A training clip has two captions in different words, a validation
                clip one.
            "demo_unseen": train/list.csv and val/list.csv (`path,label`), each with a classes.txt
                of its own, of the 12 classes SEEN and the 4 UNSEEN, and tokenizer.json, of CLIP's
                kind, for the names of the 12.
        num_train, num_val: number of clips, spread evenly over the classes of their list and the
            colours; None: enough to learn from. With captions num_val is at most 64, so that a
            caption has one right answer.
        size: height and width in pixels, even.
        frames: length of a clip.
        seed: of everything random.

    Returns:
        The folder.

    Raises:
        UserError: a number is wrong, or the folder holds something else, or another demo set.
    """
    writers = {"demo": _write, "demo_captions": _write_captioned, "demo_unseen": _write_unseen}
    train, val, card = _SETS[name]
    num_train = train if num_train is None else num_train
    num_val = val if num_val is None else num_val
    if name == "demo_captions" and num_val > len(EVENTS) * len(COLOURS):
        raise UserError(f"demo: num_val={num_val} must be at most 64, to have one pair in each")
    if size % 2 or size < 16:
        raise UserError(f"demo: size={size} must be even and at least 16")
    settings = dict(num_train=num_train, num_val=num_val, size=size, frames=frames, seed=seed)
    return _make(folder, settings | card, writers[name])


def default_folder() -> str:
    """Returns the folder of the demo set where none is named: a cache, or $VIDJAX_DEMO_DATA."""
    return os.path.expanduser(os.environ.get("VIDJAX_DEMO_DATA") or files.cache_folder("demo"))


def list_of(name: str, split: str, folder: str | os.PathLike) -> str:
    """Returns the list of a demo dataset; makes the set first where it is missing.

    Args:
        name: a key of LISTS.
        split: "train" or "val".
        folder: of the demo set; the others lie beside it, as {folder}_captions, {folder}_unseen.
    """
    return os.path.join(_set_of(name, folder), LISTS[name].format(split=split))


def tokenizer_of(name: str, folder: str | os.PathLike, kind: str) -> str:
    """Returns the tokeniser file of a demo dataset; makes the set first where it is missing.

    Args:
        name, folder: as of `list_of`.
        kind: "sentencepiece" or "clip".

    Raises:
        UserError: that set has no tokeniser of that kind.
    """
    path = os.path.join(_set_of(name, folder), _TOKENIZERS[kind])
    if not os.path.exists(path):
        raise UserError(
            f"the dataset {name} has no tokeniser of the kind {kind}; set data.tokenizer to a file"
        )
    return path


def _set_of(name: str, folder: str | os.PathLike) -> str:
    name = name.replace("demo_pairs", "demo")
    return make(os.path.normpath(os.fspath(folder)) + name.removeprefix("demo"), name)


def _make(
    folder: str | os.PathLike,
    settings: dict[str, int | str],
    write: Callable[[str, dict], None],
) -> str:
    folder = os.path.abspath(os.path.expanduser(folder))
    if _is_finished(folder, settings):
        return folder
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    aside = tempfile.mkdtemp(prefix=os.path.basename(folder) + ".", dir=os.path.dirname(folder))
    try:
        write(aside, settings)
        with open(os.path.join(aside, "demo.json"), "w", encoding="utf-8") as file:
            json.dump(settings, file)
        os.chmod(aside, 0o755)  # mkdtemp makes it private
        try:
            if not _is_finished(folder, settings):  # else another process was faster
                shutil.rmtree(folder, ignore_errors=True)  # empty, or of an older version
                os.rename(aside, folder)
        except OSError:
            if not _is_finished(folder, settings):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _is_finished(folder: str, settings: dict[str, int | str]) -> bool:
    if not os.path.exists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    try:
        with open(os.path.join(folder, "demo.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        raise UserError(f"{folder} is not a demo set; choose a new folder for it") from None
    if found != settings:
        if found in [settings | {"version": older} for older in range(settings["version"])]:
            return False
        raise UserError(
            f"{folder} holds a demo set made with {found}, not {settings}; remove it, or choose "
            f"another folder"
        )
    return True


def _write(folder: str, settings: dict[str, int | str]) -> None:
    os.mkdir(os.path.join(folder, "pairs"))
    size, frames, seed = settings["size"], settings["frames"], settings["seed"]
    clips = {}
    for split, name in enumerate(("train", "val")):
        count = settings[f"num_{name}"]
        rows = [(f"clips/{name}_{i:05d}.mp4", i % len(CLASSES)) for i in range(count)]
        for i, (path, label) in enumerate(rows):
            clips[path] = functools.partial(_render, label, size, frames, (seed, split, i))
        _write_csv(folder, LISTS["demo"], name, [("path", "label"), *rows])
        pairs = [(f"../{path}", *divmod(label, 2)) for path, label in rows]
        _write_csv(folder, LISTS["demo_pairs"], name, [("path", "motion", "direction"), *pairs])
    _encode_all(folder, clips)
    _write_names(folder, "classes.txt", CLASSES)
    _write_names(folder, "pairs/classes.txt", MOTIONS + DIRECTIONS)


def _write_captioned(folder: str, settings: dict[str, int | str]) -> None:
    size, frames, seed = settings["size"], settings["frames"], settings["seed"]
    clips, captions = {}, []
    for split, name in enumerate(("train", "val")):
        rows = [("path", "label", "caption")]
        for i in range(settings[f"num_{name}"]):
            path, label = f"clips/{name}_{i:05d}.mp4", i % len(EVENTS)
            colour = list(COLOURS)[i // len(EVENTS) % len(COLOURS)]
            key = (seed, split, i, 1)  # no clip of the set without captions
            clips[path] = functools.partial(_render_event, label, size, frames, key, colour)
            for words in np.random.default_rng(key).permutation(CAPTIONS)[: 2 - split]:
                rows.append((path, label, words.format(colour=colour, event=EVENTS[label])))
        _write_csv(folder, LISTS["demo_captions"], name, rows)
        captions += [caption for _, _, caption in rows[1:]]
    _encode_all(folder, clips)
    train_tokenizer(captions, os.path.join(folder, "tokenizer.model"), 128)
    train_clip_tokenizer(captions, os.path.join(folder, "tokenizer.json"), _CLIP_VOCAB)
    _write_names(folder, "classes.txt", EVENTS)


def _write_unseen(folder: str, settings: dict[str, int | str]) -> None:
    size, frames, seed = settings["size"], settings["frames"], settings["seed"]
    clips = {}
    for split, (name, classes) in enumerate((("train", SEEN), ("val", UNSEEN))):
        os.mkdir(os.path.join(folder, name))
        rows = [("path", "label")]
        for i in range(settings[f"num_{name}"]):
            path, label = f"clips/{name}_{i:05d}.mp4", i % len(classes)
            colour = list(COLOURS)[i // len(classes) % len(COLOURS)]
            key = (seed, split, i, 2)  # no clip of the other sets
            clips[path] = functools.partial(_render_pair, classes[label], size, frames, key, colour)
            rows.append((f"../{path}", label))
        _write_csv(folder, LISTS["demo_unseen"], name, rows)
        _write_names(folder, f"{name}/classes.txt", classes)
    _encode_all(folder, clips)
    train_clip_tokenizer(SEEN, os.path.join(folder, "tokenizer.json"), _CLIP_VOCAB)


def _encode_all(folder: str, clips: Mapping[str, Callable[[], np.ndarray]]) -> None:
    """Renders and writes clips by their paths, on all cores: encoding runs outside the GIL."""
    os.mkdir(os.path.join(folder, "clips"))

    def encode(path: str) -> None:
        _encode(os.path.join(folder, path), clips[path]())

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(encode, clips))


def _write_names(folder: str, path: str, names: tuple[str, ...]) -> None:
    with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)


def _write_csv(folder: str, name: str, split: str, rows: list[tuple]) -> None:
    with open(os.path.join(folder, name.format(split=split)), "w", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _render(label: int, size: int, frames: int, key: tuple[int, ...]) -> np.ndarray:
    """Renders one clip, uint8 [T, size, size, 3]."""
    rng = np.random.default_rng(key)
    background = _background(rng, size, waves=())
    # Classes come in pairs, one the other played backwards. In a frame the ball moves by about
    # 1/28 of the picture, 11 degrees, or 4%.
    time = np.arange(frames, dtype=np.float32)[:, None, None]  # [T, 1, 1]
    time = time * rng.uniform(0.8, 1.25) * (1 if label % 2 else -1)
    slide_x, slide_y, turn, swell = (time * (label // 2 == kind) for kind in range(4))
    angle = 2 * np.pi * (rng.random() + turn / 32)
    low, high = _RADIUS
    radius = low * (high / low) ** ((rng.random() + swell / 12) % 1)
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
    # Offsets [T, H, W] from the nearest copy of the ball's centre.
    x, y = x - rng.random() - slide_x / 28, y - rng.random() - slide_y / 28
    x, y = x - np.rint(x), y - np.rint(y)
    distance = np.hypot(x, y)
    ball, white = (
        np.clip(size * inside + 0.5, 0, 1)[..., None]
        for inside in (radius - distance, _rotate(x, y, angle)[0])
    )
    colour = 230 * np.float32(colorsys.hsv_to_rgb(rng.random(), 0.85, 1))
    shaded = (white * 245 + (1 - white) * colour) * (1 - 0.5 * (distance / radius) ** 2)[..., None]
    video = background + ball * (shaded - background)
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def _render_event(
    label: int, size: int, frames: int, key: tuple[int, ...], colour: str
) -> np.ndarray:
    """Renders one clip with one shape, uint8 [T, size, size, 3]."""
    rng = np.random.default_rng(key)
    background = _background(rng, size)
    time = np.linspace(-1, 1, frames, dtype=np.float32) * rng.uniform(0.8, 1)  # [T]
    time = time * (1 if label % 2 else -1)
    slide_x, slide_y, swell, fade = (time * (label // 2 == kind) for kind in range(4))
    x, y = rng.uniform(-0.15, 0.15, 2)
    scale = rng.uniform(0.5, 0.7) + 0.3 * swell
    opacity = 0.5 + 0.5 * fade if label // 2 == 3 else np.ones(frames)
    return _paint(background, rng, x + 0.3 * slide_x, y + 0.3 * slide_y, scale, opacity, colour)


def _render_pair(
    name: str, size: int, frames: int, key: tuple[int, ...], colour: str
) -> np.ndarray:
    """Renders one clip with one shape that moves and changes, uint8 [T, size, size, 3]."""
    rng = np.random.default_rng(key)
    background = _background(rng, size)
    happening = [EVENTS.index(event) for event in name.split(" and ")]
    time = np.linspace(-1, 1, frames)
    progress = []  # of each of the four things that may happen, from -1 to 1, [T]
    for kind in range(4):
        speed, still = rng.uniform(0.8, 1), np.full(frames, rng.choice(time))
        directions = [2 * (event % 2) - 1 for event in happening if event // 2 == kind]
        progress.append(speed * (time * directions[0] if directions else still))
    slide_x, slide_y, swell, fade = progress
    x, y = rng.uniform(-0.08, 0.08, 2)
    scale = rng.uniform(0.5, 0.6) + 0.2 * swell
    # Even the faintest shape is seen to slide, and the largest stays in the picture.
    opacity = 0.66 + 0.34 * fade
    return _paint(background, rng, x + 0.22 * slide_x, y + 0.22 * slide_y, scale, opacity, colour)


def _paint(
    background: np.ndarray,
    rng: np.random.Generator,
    centre_x: np.ndarray,
    centre_y: np.ndarray,
    scale: np.ndarray,
    opacity: np.ndarray,
    colour: str,
) -> np.ndarray:
    """Paints a random shape on a background [H, W, 3], uint8 [T, H, W, 3]; its numbers are [T]."""
    centre_x, centre_y, scale, opacity = (
        number[:, None, None] for number in (centre_x, centre_y, scale, opacity)
    )
    size = len(background)
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size - 0.5
    angle = np.float32(rng.uniform(0, 2 * np.pi))
    along, across = _rotate((x - centre_x) / scale, (y - centre_y) / scale, angle)
    alpha = _shape(rng.integers(3), rng.uniform(0.75, 0.9), along, across, 0.6 * size) * opacity
    shaded = (225 + 20 * along - _LIGHT * y)[..., None] * np.float32(COLOURS[colour])
    video = np.repeat(background[None], len(alpha), axis=0)
    video += alpha[..., None] * (shaded * rng.uniform(0.8, 1) - video)
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def _background(
    rng: np.random.Generator, size: int, waves: tuple[tuple[float, float], ...] = _WAVES
) -> np.ndarray:
    """Paints light from above and long waves of each colour, [H, W, 3]; darker than the shapes.

    Nowhere flat, so that every patch has a pattern; the light is what all clips have in common, as
    in real videos, and the first thing that a masked autoencoder learns.
    """
    y, x = np.mgrid[:size, :size][..., None] / size
    picture = rng.uniform(70, 100, 3) + _LIGHT * (0.5 - y)
    for amplitude, periods in waves:
        turn, phase = rng.uniform(0, 2 * np.pi, (2, 3))
        wave = np.cos(turn) * x + np.sin(turn) * y
        picture = picture + amplitude * np.sin(2 * np.pi * periods * wave + phase)
    return picture.astype(np.float32)


def _rotate(x: np.ndarray, y: np.ndarray, angle) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _shape(
    kind: int, length: float, along: np.ndarray, across: np.ndarray, pixels: float
) -> np.ndarray:
    """Returns the coverage in 0..1 of a bar, an ellipse or an arrowhead, [T, H, W]."""
    half = length / 2
    if kind == 0:
        inside = np.minimum(half - np.abs(along), 0.4 * half - np.abs(across))
    elif kind == 1:
        inside = 0.45 * half * (1 - np.hypot(along / half, across / (0.45 * half)))
    else:
        inside = np.minimum(half + along, 0.45 * (half - along) - np.abs(across))
    return np.clip(pixels * inside + 0.5, 0, 1)


def _encode(path: str, video: np.ndarray) -> None:
    import av

    # A short GOP makes random access cheap; the rest makes the same bytes everywhere.
    options = {"crf": "18", "preset": "veryfast", "g": "12", "threads": "1"}
    options["x264-params"] = "cpu-independent=1"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main(argv: list[str]) -> None:
    captions, unseen = (flags.FLAGS[name].value for name in ("captions", "unseen"))
    if len(argv) != 2 or (captions and unseen):
        raise UserError("usage: python -m vidjax.data.demo FOLDER [--captions|--unseen]")
    name = "demo_captions" if captions else "demo_unseen" if unseen else "demo"
    folder = make(argv[1], name)
    train, val = (os.path.join(folder, LISTS[name].format(split=s)) for s in ("train", "val"))
    print(f"demo set in {folder}; train on it with")
    print(f"  --config.data.name={name} --config.data.train={train} --config.data.val={val}")


if __name__ == "__main__":
    flags.DEFINE_bool("captions", False, "the set with captions")
    flags.DEFINE_bool("unseen", False, "the set of unseen classes")
    run_main(main)
