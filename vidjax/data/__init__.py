"""From lists of videos to batches: decode, sample, transform, on this host's cores.

    lists       lists of videos in every format (lists.read_list)
    reading     files, folders, records and objects to frames
    frames      frames to clips: sampling, resizing, crops, augmentation
    loader      clips to batches, in worker processes

Nothing here may import jax, as workers import this package.
"""

from vidjax.data.bad_videos import BadVideos
from vidjax.data.loader import Batches, eval_loader, train_loader
