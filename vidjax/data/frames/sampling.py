"""Frames of a video that make a clip. Pure numpy; indices are int64 and may repeat.

One random clip for training (`train_indices`) and fixed clips for evaluation and prediction
(`view_indices`), by the name of the sampling:

    dense           every `stride`-th frame; training starts anywhere. VideoMAE pre-training.
    dense_linspace  in training `frames` points spread over a window of frames * stride frames,
                    both ends included: VideoMAE fine-tuning on Kinetics, UCF101, HMDB51. The
                    spacing is 64 / 15 = 4.27 for 16 frames at stride 4. Evaluation as `dense`.
    segment         one frame from each of `frames` equal segments (TSN); `stride` is not used.
                    VideoMAE fine-tuning on Something-Something; X-CLIP.
    dense_cycle     every `stride`-th frame; training starts anywhere; evaluation starts spread
                    over the frames; shorter videos are played again from their start. ViViT.
    linspace        the whole video: one frame from each of `frames` equal parts, which need not
                    be whole frames long; evaluation takes their first. `stride` is not used.
                    VideoPrism.
    linspace_exact  the same, but for evaluation's frames where the parts are not whole: exact
                    integers instead of truncated floats. Hugging Face's video processors.

For one clip of a video in hand (prediction, validation while training) ask for one view: the
middle clip at the exact stride, the centres of the segments, or the first frames of the parts.

Sources: MCG-NJU/VideoMAE kinetics.py and ssv2.py; OpenGVLab/VideoMAEv2 dataset/datasets.py;
google-deepmind/dmvr processors.py, which google-research/scenic reads videos with; microsoft/VideoX
X-CLIP/datasets/pipeline.py; google-deepmind/videoprism colabs/videoprism_video_encoder_demo.ipynb.
"""

import numpy as np

from vidjax.preprocessing import check_sampling


def fewest_frames(sampling: str, frames: int) -> int:
    """Frames that a video needs for a training clip of `frames`, where the config does not say.

    `frames` of them, so that the clip moves all the time; 1 if the sampling plays short videos
    again and again, as their clips then move as those that the reference trains on.
    """
    return 1 if sampling == "dense_cycle" else frames


def train_indices(
    sampling: str, num_frames: int, frames: int, stride: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws the frame indices [frames] of one clip.

    Short videos repeat their last frame, with "dense_cycle" all of their frames one after the
    other, and with "linspace" and "linspace_exact" each.

    Raises UserError if `sampling` is not one of the names above.
    """
    check_sampling(sampling)
    if sampling == "segment":
        return random_segments(num_frames, frames, rng)
    if sampling in ("linspace", "linspace_exact"):
        return random_linspace(num_frames, frames, rng)
    clips = {
        "dense": random_dense,
        "dense_linspace": random_dense_linspace,
        "dense_cycle": random_dense_cycle,
    }
    return clips[sampling](num_frames, frames, stride, rng)


def view_indices(
    sampling: str, num_frames: int, frames: int, stride: int, views: int = 1
) -> np.ndarray:
    """Returns frame indices [views, frames] of the clips that evaluation averages over.

    Raises UserError if `sampling` is not one of the names above.
    """
    check_sampling(sampling)
    if sampling == "segment":
        return segment_views(num_frames, frames, views)
    if sampling == "linspace":
        return linspace_views(num_frames, frames, views)
    if sampling == "linspace_exact":
        return linspace_exact_views(num_frames, frames, views)
    clips = dense_cycle_views if sampling == "dense_cycle" else dense_views
    return clips(num_frames, frames, stride, views)


def random_dense(num_frames: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a clip at the exact stride (VideoMAE kinetics.py, class VideoMAE: pre-training).

    The start is uniform over [0, num_frames - frames * stride]. In a shorter video the index
    stops advancing at the last position from which a further step would still stay before the
    last frame: the reference compares its one-based offset with `<`, which is kept.
    """
    start = int(rng.integers(0, max(num_frames - frames * stride, 0) + 1))
    last_step = max((num_frames - 2 - start) // stride, 0)
    return start + stride * np.minimum(np.arange(frames), last_step)


def random_dense_linspace(
    num_frames: int, frames: int, stride: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws a window of frames * stride frames, sampled at `frames` points (fine-tuning).

    VideoMAE kinetics.py, VideoClsDataset in train mode. The points are linspace(start, end) with
    both ends, so they are stride * frames / (frames - 1) apart and truncated to int.
    """
    window = frames * stride
    if num_frames > window:
        end = int(rng.integers(window, num_frames))
        points = np.linspace(end - window, end, frames)
        return np.minimum(points, end - 1).astype(np.int64)
    points = np.linspace(0, num_frames, num_frames // stride)
    points = np.concatenate([points, np.full(frames - len(points), num_frames)])
    return np.minimum(points, num_frames - 1).astype(np.int64)


def random_segments(num_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a frame from each of `frames` segments of num_frames // frames frames (TSN).

    VideoMAE ssv2.py, SSVideoClsDataset in train mode. A video of fewer than `frames` frames gives
    all of them, spread evenly, as mmaction2's SampleFrames does for X-CLIP, but for its jump back
    to the first frame at the end; VideoMAE repeats the first one `frames` times.
    """
    length = num_frames // frames
    if length == 0:
        spread = np.around(np.arange(frames) * num_frames / frames).astype(np.int64)
        return np.minimum(spread, num_frames - 1)
    return np.arange(frames) * length + rng.integers(0, length, frames)


def random_dense_cycle(
    num_frames: int, frames: int, stride: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws a clip at the exact stride, cyclic in short videos (DMVR sample_sequence).

    The start is uniform over all from which the last index still lies in the video; where there is
    none it is 0, and after the last frame follows the first.
    """
    start = int(rng.integers(0, max(num_frames - (frames - 1) * stride, 1)))
    return _cycle(start, num_frames, frames, stride)


def dense_views(num_frames: int, frames: int, stride: int, views: int = 1) -> np.ndarray:
    """Spreads `views` clips evenly over every stride-th frame of the video, [views, frames].

    VideoMAE kinetics.py, VideoClsDataset in test mode (5 views). One view is the middle clip.
    """
    kept = np.arange(0, num_frames, stride)
    kept = np.pad(kept, (0, max(frames - len(kept), 0)), mode="edge")
    room = len(kept) - frames
    if views == 1:
        starts = [room // 2]
    else:
        step = room / (views - 1)
        starts = [int(view * step) for view in range(views)]
    return np.stack([kept[start : start + frames] for start in starts])


def dense_cycle_views(num_frames: int, frames: int, stride: int, views: int = 1) -> np.ndarray:
    """Spreads the starts of `views` clips evenly over the video, [views, frames]; cyclic.

    DMVR sample_linspace_sequence, and for one view, the middle clip, sample_sequence. They reserve
    frames * stride frames for a clip, stride - 1 more than it reaches over.
    """
    room = max(num_frames - frames * stride, 0)
    if views == 1:
        starts = [room // 2]
    else:
        # In float32 as TensorFlow's linspace, whose truncation decides about a frame.
        step = np.float32(room) / np.float32(views - 1)
        starts = [*(np.arange(views - 1, dtype=np.float32) * step).astype(int), room]
    return np.stack([_cycle(int(start), num_frames, frames, stride) for start in starts])


def segment_views(num_frames: int, frames: int, views: int = 1) -> np.ndarray:
    """Interleaves `views` samplings of `frames` segments, [views, frames].

    VideoMAEv2 dataset/datasets.py, test mode: view j takes int(j * tick / views + tick * x) for
    segments x of length tick = num_frames / frames; VideoMAE's ssv2.py is the case of 2 views.
    One view takes the centres of the segments, as TSN and X-CLIP do; X-CLIP's several views are
    random draws, as in training.
    """
    tick = num_frames / frames
    offsets = [tick / 2] if views == 1 else [view * tick / views for view in range(views)]
    return np.stack([(offset + tick * np.arange(frames)).astype(np.int64) for offset in offsets])


def random_linspace(num_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the frame at a random point of each of `frames` equal parts of the video.

    VideoPrism's training code is not public; this is what its evaluation is one draw of.
    """
    points = (np.arange(frames) + rng.random(frames)) * (num_frames / frames)
    return np.minimum(points.astype(np.int64), num_frames - 1)  # rounding may reach the end


def linspace_views(num_frames: int, frames: int, views: int = 1) -> np.ndarray:
    """Takes the first frame of each of `frames` equal parts of the video, [views, frames].

    That is one view, all that VideoPrism takes; further ones start between, evenly.
    """
    # Truncated from linspace's own floats: i * num_frames // frames differs now and then.
    first = np.linspace(0, num_frames, frames, endpoint=False)
    later = np.arange(views)[:, None] * (num_frames / frames / views)
    return (first + later).astype(np.int64)


def linspace_exact_views(num_frames: int, frames: int, views: int = 1) -> np.ndarray:
    """Takes the first frame of each of `frames` equal parts, [views, frames]; more between.

    transformers video_utils.py, default_sample_indices_fn, which takes one view and refuses
    videos of fewer frames; here they repeat frames.
    """
    parts = np.arange(frames) * views + np.arange(views)[:, None]
    return parts * num_frames // (frames * views)


def _cycle(start: int, num_frames: int, frames: int, stride: int) -> np.ndarray:
    return (start + stride * np.arange(frames)) % num_frames
