"""Features of loaded models with random weights against the hidden states of transformers.

Videos are bytes and go the whole way, so that places on the grid and order of layers show.
"""

import numpy as np
import pytest

from tests.support.round_trip import command
from vidjax import load_model

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 144,
    "image_size": 64,
    "num_frames": 8,
}
FORMS = {
    "videomae": ("VideoMAE", {"use_mean_pooling": False}),
    "vivit": ("Vivit", {"tubelet_size": [2, 16, 16]}),
}
TOLERANCE = 3e-6  # float32, of the largest value


@pytest.mark.parametrize("name", FORMS)
def test_layers_are_hidden_states(tmp_path, name, record_property):
    prefix, changes = FORMS[name]
    config = getattr(transformers, f"{prefix}Config")(**SIZES, **changes)
    torch.manual_seed(0)
    reference = getattr(transformers, f"{prefix}Model")(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    reference.save_pretrained(tmp_path / "hf")
    command(f"--from={tmp_path}/hf", f"--to={tmp_path}/m")
    m = load_model(tmp_path / "m")
    video = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    pixels = np.array(m.preprocess(video)).transpose(0, 1, 4, 2, 3)
    with torch.no_grad():
        out = reference(torch.from_numpy(pixels), output_hidden_states=True)

    def error(ours, theirs):
        theirs = theirs.numpy()[0, -64:].reshape(4, 4, 4, 48)  # ViViT's class token comes first
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    # The first of the hidden states are the embeddings.
    found = [error(m.features(video, layers=i), out.hidden_states[i + 1]) for i in range(3)]
    found.append(error(m.features(video, layers=-1), out.hidden_states[-1]))
    found.append(error(m.features(video), out.last_hidden_state))
    record_property("errors", found)
    print(f"\nfloat32, {prefix}Model: {found}")
    assert max(found) < TOLERANCE, found
    several = m.features([video, video[::-1]], layers=(0, -1))
    assert (
        error(several[0, 1], out.hidden_states[-1])
        < TOLERANCE
        < error(several[1, 1], out.hidden_states[-1])
    )
