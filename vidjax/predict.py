"""Names the classes of videos, or compares videos with texts.

    python -m vidjax.predict --checkpoint=NAME --video=a.mp4

A classifier gives the probabilities of its classes. A video-text model gives those of texts:
`--prompt="a video of a dog." --prompt="a video of a cat."`. NAME is any of vidjax.sources.
"""

import sys

from absl import flags

from vidjax import compilation, pretrained, sources
from vidjax.errors import UserError, printable, run_main


def main(argv: list[str]) -> None:
    checkpoint, videos = flags.FLAGS.checkpoint, list(dict.fromkeys(flags.FLAGS.video))
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; videos are given by --video=FILE")
    if not checkpoint or not videos:
        raise UserError("say what to look at: --checkpoint=NAME --video=FILE")
    compilation.keep_programs()
    prompts, temperature = flags.FLAGS.prompt, flags.FLAGS.temperature
    if temperature is not None and not prompts:
        raise UserError("--temperature is of the comparison with texts; give --prompt, too")
    model = pretrained.load_model(checkpoint)
    if prompts:
        found = model.compare(videos, prompts, temperature)
    else:
        found = model.classify(videos, flags.FLAGS.top_k)
    for path, answers in zip(videos, found, strict=True):
        print(printable(path))
        for name, probability in answers:
            print(f"  {probability:6.1%}  {printable(name)}")
    if model.card.license:
        print(printable(f"license of the weights: {model.card.license}"), file=sys.stderr)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, sources.HELP)
    flags.DEFINE_multi_string("video", [], "A video file; may be given several times.")
    flags.DEFINE_integer("top_k", 5, "How many classes to print for each video.")
    flags.DEFINE_multi_string("prompt", [], "A text to compare with; may be given several times.")
    flags.DEFINE_float("temperature", None, "Of --prompt; default: the model's, or 0.01.")
    run_main(main)
