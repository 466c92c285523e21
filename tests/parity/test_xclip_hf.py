"""Random X-CLIPs and CLIPs of transformers against ours, converted by the real command.

Every tensor is random, also scales, biases, tokens and positions, and logits are scaled by about
100, as in trained models. Those of base size are as large as the published ones, with clips of 8
frames of 224 pixels: minutes and 6 GB on 2 cores. The other models are small.
"""

import functools

import jax
import numpy as np
import pytest

from tests.support.round_trip import check_back_to_hugging_face, command
from vidjax import load_model, pretrained
from vidjax import tokenizers as texts
from vidjax.objectives import contrastive

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

SMALL_TEXT = {
    "vocab_size": 100,
    "hidden_size": 64,  # so that its projection is square
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "eos_token_id": 99,
}
SMALL_CLIP = {
    "hidden_size": 48,
    "intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
SMALL = SMALL_CLIP | {
    "num_frames": 3,
    "mit_hidden_size": 64,
    "mit_intermediate_size": 96,
    "mit_num_hidden_layers": 2,
    "mit_num_attention_heads": 2,
}
WHOLE = {"projection_dim": 64, "prompt_num_attention_heads": 8, "prompt_layers": 3}
X_TEXT, X_VISION, X = (getattr(transformers, f"XCLIP{n}Config") for n in ("Text", "Vision", ""))
C_TEXT, C_VISION, C = (getattr(transformers, f"CLIP{n}Config") for n in ("Text", "Vision", ""))


def xclip(vision, text, **whole):
    parts = {"vision_config": X_VISION(**vision).to_dict(), "text_config": X_TEXT(**text).to_dict()}
    return X(**parts, **whole)


def clip(vision, text, **whole):
    parts = {"vision_config": C_VISION(**vision).to_dict(), "text_config": C_TEXT(**text).to_dict()}
    return C(**parts, **whole)


FORMS = {
    "XCLIPVisionModel": (None, lambda: X_VISION(**SMALL)),
    "XCLIPTextModel": ("text", lambda: X_TEXT(**SMALL_TEXT)),
    "XCLIPModel": ("video_text", lambda: xclip(SMALL, SMALL_TEXT, **WHOLE)),
    "CLIPModel": ("image_text", lambda: clip(SMALL_CLIP, SMALL_TEXT, projection_dim=64)),
    "XCLIPModel-base-patch32": ("video_text", lambda: xclip({}, {})),
    "XCLIPModel-base-patch16": ("video_text", lambda: xclip({"patch_size": 16}, {})),
    "CLIPModel-base-patch32": ("image_text", lambda: clip({}, {})),
}
# Absolute; unit vectors are between -1 and 1, logits between -100 and 100.
TOLERANCE = {"tokens": 5e-5, "frames": 5e-5, "video": 5e-5, "pooled": 5e-5, "text": 5e-5}
TOLERANCE |= {"video_embeds": 2e-5, "text_embeds": 2e-5, "logits": 2e-4}
TOLERANCE64 = dict.fromkeys(TOLERANCE, 1e-10)


def randomise(reference):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.normal_(0, 0.03 if parameter.ndim > 1 else 0.1)
            if parameter.ndim == 1 and "weight" in name:  # of norms
                parameter.add_(1)
        if hasattr(reference, "logit_scale"):
            reference.logit_scale.fill_(4.6031)
    return reference.eval()


@pytest.fixture(scope="module", params=list(FORMS))
def form(request, tmp_path_factory):
    """Head, transformers' model, and our folder converted from what it saved."""
    head, config = FORMS[request.param]
    cls = getattr(transformers, request.param.partition("-")[0])
    reference = randomise(cls._from_config(config(), attn_implementation="eager"))
    folder = tmp_path_factory.mktemp("parity")
    reference.save_pretrained(folder / "hf")
    command(f"--from={folder}/hf", f"--to={folder}/vidjax")
    yield head, reference, folder
    for path in folder.rglob("*"):  # gigabytes
        if path.is_file():
            path.unlink()


@pytest.fixture(scope="module")
def inputs(form):
    return make_inputs(*form[:2])


def make_inputs(head, reference, size=None):
    """Videos, one where the model is large, and texts of 7, 20 and all 77 tokens, padded to 77."""
    config = reference.config
    rng = np.random.default_rng(0)
    found = {}
    if head != "text":
        vision = config if head is None else config.vision_config
        small, frames = vision.hidden_size < 100, getattr(vision, "num_frames", 2)
        size = size or (vision.image_size,) * 2
        found["video"] = rng.standard_normal((1 + small, frames, *size, 3), np.float32)
    if head is not None:
        vocab = (config if head == "text" else config.text_config).vocab_size
        lengths = np.array([[7], [20], [77]])
        ids = rng.integers(3, vocab - 1, (3, 77))
        found["mask"] = np.arange(77) < lengths
        found["text"] = np.where(np.arange(77) < lengths - 1, ids, vocab - 1).astype(np.int32)
    return found


def run_reference(head, reference, inputs, dtype, **options):
    """Returns the reference's outputs, by our names."""
    reference = reference.to(dtype)
    whole = head in ("video_text", "image_text")
    vision, text = (
        getattr(reference, f"{name}_model") if whole else reference for name in ("vision", "text")
    )
    pixels, keep, hooks = {}, {}, []
    if "video" in inputs:
        video = torch.from_numpy(inputs["video"].transpose(0, 1, 4, 2, 3)).to(dtype)
        frames = video.flatten(0, 1)
        pixels = {"pixel_values": video if head == "video_text" else frames, **options}
        hooks.append(
            vision.register_forward_hook(
                # At once: CLIPModel replaces them by what it projects.
                lambda *a: keep.update(tokens=a[2].last_hidden_state, frames=a[2].pooler_output)
            )
        )
    words = {}
    if "text" in inputs:
        ids, mask = (torch.from_numpy(inputs[key]).long() for key in ("text", "mask"))
        words = {"input_ids": ids, "attention_mask": mask}
        hooks.append(text.register_forward_hook(lambda *a: keep.update(text=a[2].pooler_output)))
    with torch.no_grad():
        out = reference(**pixels, **words)
        found = {}
        if "video" in inputs:
            batch, length = inputs["video"].shape[:2]
            for name in ("tokens", "frames"):
                found[name] = keep[name].unflatten(0, (batch, length))
        if "text" in keep:
            found["pooled"] = keep["text"]
        if whole:
            found["text"] = reference.text_projection(keep["text"])
            found["text_embeds"] = out.text_embeds
        if head == "video_text":
            found["video"] = out.mit_output.pooler_output
            found["video_embeds"], found["logits"] = out.video_embeds, out.logits_per_video
        elif head == "image_text":
            found["video_embeds"] = out.image_embeds.unflatten(0, (batch, length))
            found["logits"] = out.logits_per_image  # of one frame each
    for hook in hooks:
        hook.remove()
    return {name: value.numpy() for name, value in found.items()}


def run_ours(head, folder, inputs, dtype):
    loaded = load_model(folder / "vidjax", dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), loaded.params)

    @jax.jit
    def apply(params, inputs):
        def method(model):
            found = {}
            words = inputs.get("text"), inputs.get("mask")
            if "video" in inputs:
                video = inputs["video"].astype(dtype)
                found["tokens"], found["frames"] = model.encoder(video)
            if "text" in inputs:
                found["pooled"] = model.text.pool(*words)
            if head == "video_text":
                vectors, context = model.video_features(video)
                found["video"], found["text"] = vectors, model.text_features(*words)
                found["video_embeds"] = model.encode_video(video)
                found["text_embeds"] = model.encode_text(*words, context=context)
                found["logits"] = model(video, *words)
            elif head == "image_text":
                found["text"] = model.encode_text(*words, normalise=False)
                found["text_embeds"] = model.encode_text(*words)
                found["video_embeds"] = model.encode_frames(video)
                frames = video.reshape(-1, 1, *video.shape[2:])
                found["logits"] = model(frames, *words)
            return found

        return loaded.model.apply({"params": params}, method=method)

    return jax.tree.map(np.asarray, apply(params, inputs))


def errors(ours, theirs):
    assert ours.keys() == theirs.keys()
    shapes = [{key: value.shape for key, value in found.items()} for found in (ours, theirs)]
    assert shapes[0] == shapes[1]
    return {key: float(np.abs(ours[key] - theirs[key]).max()) for key in ours}


def test_float32(form, inputs, record_property, request):
    head, reference, folder = form
    theirs = run_reference(head, reference, inputs, torch.float32)
    found = errors(run_ours(head, folder, inputs, "float32"), theirs)
    record_property("errors", found)
    print(f"\nfloat32, {request.node.name}: {found}")
    print({key: float(np.abs(value).max()) for key, value in theirs.items()})
    assert all(found[key] < TOLERANCE[key] for key in found), found


@pytest.fixture
def exact(monkeypatch):
    """Its softmax is in float32, whatever the dtype."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)
    )
    with jax.enable_x64(True):
        yield


def test_float64(form, inputs, record_property, request, exact):
    head, reference, folder = form
    if "base" in request.node.name:
        pytest.skip("what it shows, small models show as well")
    theirs = run_reference(head, reference, inputs, torch.float64)
    found = errors(run_ours(head, folder, inputs, "float64"), theirs)
    record_property("errors", found)
    print(f"\nfloat64, {request.node.name}: {found}")
    assert all(found[key] < TOLERANCE64[key] for key in found), found


@pytest.mark.parametrize("size", [(48, 48), (24, 40)])
def test_resampled_positions(form, request, size, exact):
    head, reference, folder = form
    if head == "text" or "base" in request.node.name:
        pytest.skip("of small models that see")
    inputs = make_inputs(head, reference, size)
    options = {"interpolate_pos_encoding": True}
    theirs = run_reference(head, reference, inputs, torch.float64, **options)
    found = errors(run_ours(head, folder, inputs, "float64"), theirs)
    print(f"\nfloat64, {request.node.name}: {found}")
    assert all(found[key] < TOLERANCE64[key] for key in found), found


def test_loss(form, request):
    """transformers' `return_loss`: each of 3 videos to its text, and each text to its video."""
    head, reference, folder = form
    if head != "video_text" or "base" in request.node.name:
        pytest.skip("of the small X-CLIP")
    inputs = make_inputs(head, reference)
    inputs["video"] = np.concatenate([inputs["video"], inputs["video"][:1, ::-1]])
    ids, mask = (torch.from_numpy(inputs[key]).long() for key in ("text", "mask"))
    pixels = torch.from_numpy(inputs["video"].transpose(0, 1, 4, 2, 3))
    with torch.no_grad():
        theirs = reference.float()(ids, pixels, mask, return_loss=True).loss.item()
    loaded = load_model(folder / "vidjax")
    apply = functools.partial(loaded.model.apply, {"params": loaded.params})
    videos = apply(inputs["video"], method="video_features")
    words = apply(inputs["text"], inputs["mask"], method="text_features")
    compare = functools.partial(apply, method="similarity")
    ours = [
        float(contrastive.pairwise_loss(compare, videos, words, kind="softmax", parts=parts)[0])
        for parts in (1, 3)
    ]
    print(f"\nloss: {theirs}, {ours}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_back_to_hugging_face(form):
    _, reference, folder = form
    check_back_to_hugging_face(folder, type(reference))


def test_back_through_the_originals_format(form, request):
    """A file of the original's format, which runs in transformers the same."""
    head, reference, folder = form
    if head not in ("video_text", "image_text") or "base" not in request.node.name:
        pytest.skip("the original code has models of those sizes only")
    command(f"--from={folder}/vidjax", f"--to={folder}/pth", "--format=original")
    (folder / "hf/model.safetensors").unlink()  # the disk is small
    command(f"--from={folder}/pth/checkpoint.pth", f"--to={folder}/other")
    ours, there = (pretrained.open_params(folder / name) for name in ("vidjax", "other"))
    assert set(ours) == set(there)
    for name in ours:
        assert ours[name].tobytes() == there[name].tobytes(), name
    if "base-patch16" in request.node.name:
        return  # its config.json says nothing that base-patch32's does not
    command(f"--from={folder}/other", f"--to={folder}/hf2", "--format=hf")
    again = type(reference).from_pretrained(folder / "hf2").state_dict()
    for name, tensor in reference.float().state_dict().items():
        assert torch.equal(tensor, again[name]), name


def test_vocabulary_in_transformers(tmp_path):
    """A vocabulary that we write is read by transformers' processor, which gives the same ids."""
    torch.manual_seed(0)
    vocabulary = tmp_path / "tokenizer.json"
    texts.train_clip_tokenizer(["a red ball sliding left", "blue shapes"], vocabulary, 530)
    config = xclip(SMALL, SMALL_TEXT | {"vocab_size": 530}, **WHOLE)
    transformers.XCLIPModel(config).save_pretrained(tmp_path / "hf")
    options = f"--tokenizer={vocabulary}"
    command(f"--from={tmp_path}/hf", f"--to={tmp_path}/vidjax", options)
    command(f"--from={tmp_path}/vidjax", f"--to={tmp_path}/again", "--format=hf")
    processor = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    words = ["a red ball", "blue BALL  sliding é", "!"]
    theirs = processor(words, padding="max_length", max_length=77, return_tensors="np")
    ids, mask = pretrained.load_tokenizer(tmp_path / "vidjax")(words)
    np.testing.assert_array_equal(ids, theirs["input_ids"])
    np.testing.assert_array_equal(mask, theirs["attention_mask"])
    # And the whole processor makes frames of the model's size.
    whole = transformers.AutoProcessor.from_pretrained(tmp_path / "again")
    frames = [np.zeros((40, 60, 3), np.uint8)] * 3
    pixels = whole(videos=frames, return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, 3, 32, 32)
