"""What the published X-CLIPs and CLIPs have in common."""

HEAD_DIM = 64  # of every attention in the originals
EPS, ACT, ALPHA, SCALE = 1e-5, "quick_gelu", 0.1, 2.6592  # of the originals
FRAMES, SIZE = 8, 224  # where a model does not tell
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
