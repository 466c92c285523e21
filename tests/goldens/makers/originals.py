"""Repositories and commits of the original code that the goldens come from."""

from tests.goldens.makers.frame import Original

VIDEOMAE = Original(
    repository="MCG-NJU/VideoMAE",
    commit="14ef8d856287c94ef1f985fe30f958eb4ec2c55d",
    licence="CC-BY-NC 4.0",
    file="modeling_pretrain.py",
)
VIDEOMAEV2 = Original(
    repository="OpenGVLab/VideoMAEv2",
    commit="29eab1e8a588d1b3ec0cdec7b03a86cca491b74b",
    licence="MIT",
    file="models/modeling_pretrain.py",
)
SCENIC = Original(
    repository="google-research/scenic",
    commit="4a38d475ee89cb821078c0e2bf2065ee030e1535",
    licence="Apache 2.0",
    file="scenic/projects/vivit/model.py",
)
DMVR = Original(
    repository="google-deepmind/dmvr",
    commit="77ccedaa084d29239eaeafddb0b2e83843b613a1",
    licence="Apache 2.0",
    file="dmvr/processors.py",
)
VIDEOPRISM = Original(
    repository="google-deepmind/videoprism",
    commit="d481d91b9bf8c9d330d1e526e511a359c799bbe1",
    licence="Apache 2.0",
    file="videoprism/encoders.py",
)
KERASHUB = Original(
    repository="keras-team/keras-hub",
    commit="71453d08f59edc90d276e999319fc51e61cbf82c",
    licence="Apache 2.0",
    file="keras_hub/src/models/video_prism/video_prism_backbone.py",
)
VIDEOX = Original(
    repository="microsoft/VideoX",
    commit="1744b2159c3d11694f94dab4fcde8660c685e79a",
    licence="MIT",
    file="X-CLIP/models/xclip.py",
    root="X-CLIP",
)
