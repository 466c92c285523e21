"""Variants of the same models in vidjax and in other projects: forward passes and train steps.

Functions that a `harness.Child` calls: each returns facts (or a function that computes them) and a
callable that does the work as often as it is told, and then waits for its end. With a folder all
have the same random weights: drawn by transformers, saved, and converted by the real command;
without one each draws its own.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.cases import Case, case_of
from benchmarks.origin import cores

Once = Callable[..., Mapping[str, float] | None]
Facts = dict[str, Any]
Variant = tuple[Facts | Callable[[], Facts], Once]

LEARNING = {"lr": 1e-4, "weight_decay": 0.05, "b1": 0.9, "b2": 0.95, "eps": 1e-8}
# Of a GPU's memory, for each of two processes that take turns on it.
MEMORY_SHARE = 0.45


@dataclasses.dataclass(frozen=True)
class Job:
    """Options that all variants have.

    Attributes:
        case: name of the model, see `cases`.
        quick: whether it is tiny.
        batch: clips.
        dtype: of the computation.
        on: "cpu" or "gpu".
        folder: see `prepare`; None draws weights.
        output: file for the result of a forward pass.
        each: whether every call is waited for, as where a clip comes alone.
        size, shape: another size of vidjax's model, and other frames, height and width.
    """

    case: str
    quick: bool
    batch: int
    dtype: str
    on: str = "cpu"
    folder: str | None = None
    output: str | None = None
    each: bool = False
    size: str | None = None
    shape: Sequence[int] | None = None

    @property
    def model(self) -> Case:
        case = case_of(self.case, self.quick)
        ours = {**case.ours, "variant": self.size} if self.size else case.ours
        return dataclasses.replace(case, ours=ours, clip=tuple(self.shape or case.clip))

    def clips(self, dtype: type = np.float32) -> np.ndarray:
        """Returns the same random clips [B, T, H, W, 3] for all variants; of uint8 in bytes."""
        rng, shape = np.random.default_rng(0), (self.batch, *self.model.clip, 3)
        if dtype == np.uint8:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.random(shape, np.float32)

    def save(self, result: Any) -> None:
        np.save(self.output, np.asarray(result, np.float32))


def variant(function: Callable[..., Variant]) -> Callable[..., Variant]:
    """Lets a function of a Job and its own options take them all by keyword."""
    common = {field.name for field in dataclasses.fields(Job)}

    @functools.wraps(function)
    def wrapped(**options: Any) -> Variant:
        job = Job(**{name: options.pop(name) for name in common & options.keys()})
        return function(job, **options)

    return wrapped


def make(folder: str, case: str, quick: bool) -> None:
    """Writes folder/hf, a model of transformers with random weights."""
    import torch

    torch.manual_seed(0)
    model = new_hf_model(case_of(case, quick), attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "attention_query" in name else 0.03
            parameter.normal_(0, scale)
            if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
                parameter.add_(0 if "VideoPrism" in case else 1)  # which adds 1 itself
    model.save_pretrained(folder + "/hf")


def prepare(case: str, quick: bool, folder: pathlib.Path, formats: Iterable[str] = ()) -> None:
    """Makes folder/hf, folder/vidjax converted from it, and folder/FORMAT exported from that.

    Raises:
        UserError: one of the commands failed.
    """
    options = {"folder": str(folder), "case": case, "quick": quick}
    code = "import json, sys; from benchmarks import peers; peers.make(**json.loads(sys.argv[1]))"
    harness.whole_process([sys.executable, "-c", code, json.dumps(options)])
    harness.whole_process(convert_command(f"{folder}/hf", f"{folder}/vidjax"))
    for name in formats:
        command = convert_command(f"{folder}/vidjax", f"{folder}/{name}", f"--format={name}")
        harness.whole_process(command)


def convert_command(source: Any, target: Any, *options: str) -> list[str]:
    """Returns the command that converts a model."""
    paths = [f"--from={source}", f"--to={target}"]
    return [sys.executable, "-m", "converters.convert", *paths, *options]


def random_params(model: Any) -> Any:
    """Returns random parameters of a linen module, on the device; scales are near 1."""
    import jax

    from vidjax import models

    rng = np.random.default_rng(0)

    def draw(path: tuple, like: jax.ShapeDtypeStruct) -> jax.Array:
        values = 0.02 * rng.standard_normal(like.shape, np.float32)
        return jax.device_put(values + np.float32(path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(draw, models.abstract_params(model))


def our_model(job: Job, **speed: Any) -> tuple[Any, Any]:
    """Returns vidjax's model and its parameters in float32.

    Args:
        **speed: the fields `attention`, `remat` and `unroll`, where they are not the default.
    """
    from vidjax import load_model, models

    if job.folder is None:
        model = models.build(**job.model.ours, clip=job.model.clip, dtype=job.dtype)
        return models.replace(model, **speed), random_params(model)
    loaded = load_model(job.folder + "/vidjax", job.dtype)
    return models.replace(loaded.model, **speed), loaded.params


def output_of(model: Any, params: Any, video: Any) -> Any:
    """Returns a forward pass's output; a model of videos and texts gives its videos' features."""
    method = (lambda m, v: m.video_features(v)[0]) if hasattr(model, "video_features") else None
    return model.apply({"params": params}, video, method=method)


def repeated(step: Callable[..., Any], *arguments: Any, each: bool = False) -> Once:
    """Returns a variant's work from a jitted function."""
    import jax

    def once(calls: int = 1) -> None:
        for _ in range(calls):
            out = step(*arguments)
            if each:
                jax.block_until_ready(out)
        jax.block_until_ready(out)

    return once


def _jax_forward(job: Job, apply: Callable[..., Any], params: Any) -> Once:
    """Returns a jitted forward pass of apply(params, video), whose result is saved once."""
    import jax

    # A matrix product in bfloat16 reads parameters in bfloat16: cast once, as the peers have them.
    params = jax.device_put(jax.tree.map(lambda x: x.astype(job.dtype), params))
    video = jax.device_put(job.clips().astype(job.dtype))
    step = jax.jit(apply)
    if job.output:
        job.save(step(params, video))
        jax.clear_caches()  # so that the first run compiles
    return repeated(step, params, video, each=job.each)


@variant
def vidjax_forward(job: Job, **speed: Any) -> Variant:
    """The jitted forward pass of vidjax's model; see `our_model`."""
    import jax

    from benchmarks import flops
    from vidjax import models

    model, params = our_model(job, **speed)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)

    def facts() -> Facts:
        einsum = models.replace(model, attention="einsum")
        return {
            "flops": flops.matmul_flops(functools.partial(output_of, einsum), shapes, job.clips()),
            "parameters": sum(x.size for x in jax.tree.leaves(shapes)),
        }

    return facts, _jax_forward(job, functools.partial(output_of, model), params)


@variant
def deepmind_forward(job: Job, code: str) -> Variant:
    """The forward pass of google-deepmind/videoprism's encoder.

    Args:
        code: its checkout. With a folder, the model is that of folder/original.
    """
    import jax
    import jax.numpy as jnp
    from flax import linen as nn
    from flax import traverse_util

    from vidjax import models

    sys.path.insert(0, code)
    from videoprism import encoders  # alone: its `models` wants TensorFlow

    sizes = models.build(**job.model.ours, clip=job.model.clip).config
    model = encoders.FactorizedEncoder(
        patch_size=sizes["patch_size"][1],
        pos_emb_shape=sizes["pos_grid"],
        model_dim=sizes["width"],
        num_spatial_layers=sizes["depth"],
        num_temporal_layers=sizes["temporal_depth"],
        num_heads=sizes["num_heads"],
        mlp_dim=sizes["mlp_dim"],
        atten_logit_cap=sizes["softcap"],
        scan=True,
        fprop_dtype=jnp.dtype(job.dtype),
    )
    if job.folder is None:
        state = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), job.clips()[:1]))
    else:
        (path,) = pathlib.Path(job.folder, "original").glob("*.npz")
        with np.load(path, allow_pickle=False) as arrays:
            state = traverse_util.unflatten_dict(dict(arrays), sep="/")
    return {}, _jax_forward(job, lambda s, video: model.apply(s, video, train=False)[0], state)


def new_hf_model(case: Case, **options: Any) -> Any:
    """Returns transformers' model with weights as it draws them."""
    import transformers

    config, values = case.hf_config
    made = getattr(transformers, config)(**values)
    return getattr(transformers, case.hf)._from_config(made, **options)


def _hf_model(job: Job, dtype: str) -> Any:
    """Returns transformers' model, on the CPU or the GPU."""
    import torch
    import transformers

    torch.set_num_threads(cores())
    options = {"attn_implementation": job.model.attention, "dtype": getattr(torch, dtype)}
    if job.on == "gpu":
        torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE)  # which starts CUDA
        torch.cuda.empty_cache()  # of what was there before this variant
        with torch.device("cuda"):
            return new_hf_model(job.model, **options).to("cuda")
    if job.folder is None:
        return new_hf_model(job.model, **options)
    return getattr(transformers, job.model.hf).from_pretrained(job.folder + "/hf", **options)


def _waited(job: Job, call: Callable[[], Any]) -> Once:
    """Returns a variant's work from a function that PyTorch may do later."""
    import torch

    def once(calls: int = 1) -> None:
        for _ in range(calls):
            call()
            if job.each and job.on == "gpu":
                torch.cuda.synchronize()
        if job.on == "gpu":
            torch.cuda.synchronize()

    return once


@variant
def hf_forward(job: Job, compiled: str = "") -> Variant:
    """The forward pass of transformers' model, without gradients.

    Args:
        compiled: mode of torch.compile, such as "default" or "reduce-overhead" (CUDA graphs).
    """
    import torch

    model = _hf_model(job, job.dtype).eval()
    video = torch.from_numpy(job.clips().transpose(0, 1, 4, 2, 3).copy())
    of_pixels = job.model.hf.startswith(("VideoMAE", "Vivit", "XCLIP"))
    name = "pixel_values" if of_pixels else "pixel_values_videos"
    inputs = {name: video.to(model.device, model.dtype)}
    if job.model.hf == "VJEPA2Model":
        inputs["skip_predictor"] = True
    call = model.get_video_features if job.model.hf == "XCLIPModel" else model
    if compiled:
        call = torch.compile(call, mode=compiled)

    @torch.inference_mode()
    def run() -> Any:
        return call(**inputs)

    if job.output:
        out = run()
        if not torch.is_tensor(out):
            fields = ("logits", "pooler_output") if job.model.hf == "XCLIPModel" else ("logits",)
            field = next((name for name in fields if hasattr(out, name)), "last_hidden_state")
            out = getattr(out, field)
        job.save(out.float().cpu().numpy())
    return {}, _waited(job, run)


def train_program(job: Job, **speed: Any) -> Any:
    """Returns the `vidjax.training.program.Program` that trains a job's model."""
    from vidjax import configlib
    from vidjax.setup import Setup
    from vidjax.training.program import Program

    frames, height, _ = job.model.clip
    config = configlib.base().unlock()
    config.model.update({**job.model.ours, "dtype": job.dtype, **speed})
    config.objective.name = "masked_autoencoding" if job.model.pretraining else "classification"
    config.data.update(name="k400", batch_size=job.batch, frames=frames, size=height)
    config.optim.update(LEARNING)
    config.init = f"{job.folder}/vidjax" if job.folder else ""
    setup = Setup(config, without_lists=True)
    return Program(setup, lambda step, factor=1.0: factor * LEARNING["lr"])


def train_step(job: Job, **speed: Any) -> tuple[Any, Any, dict[str, np.ndarray], Any]:
    """Returns vidjax's train step, its first state, clips in bytes, and the step's program."""
    from vidjax.training.start import initial_state

    program = train_program(job, **speed)
    with program.setup.on_mesh():
        state = initial_state(program, log=lambda line: None)
    clips = {key: np.zeros(like.shape, like.dtype) for key, like in program.batch.items()}
    clips |= {"video": job.clips(np.uint8), "weight": np.ones(job.batch, np.float32)}

    def step(state: Any, clips: Any) -> tuple[Any, Any]:
        with program.setup.on_mesh():
            return program.train_step(state, clips)

    return step, state, clips, program


@variant
def vidjax_step(job: Job, **speed: Any) -> Variant:
    """vidjax's train step on bytes: normalisation, masks, backward, AdamW; see `our_model`."""
    import jax

    from benchmarks import flops
    from vidjax import models

    step, state, clips, program = train_step(job, **speed)
    clips = jax.device_put(clips)

    def facts() -> Facts:
        einsum = models.replace(program.setup.model, remat="none", attention="einsum")
        loss = dataclasses.replace(program.setup.objective, model=einsum).loss
        count = flops.matmul_flops(
            lambda params, clips: loss(params, clips, rng=jax.random.key(0))[0],
            program.state.params,
            clips,
        )
        planned = program.compile_step().memory_analysis()
        jax.clear_caches()  # so that the first run compiles
        # The backward pass has two products for each: three times the forward pass, by convention.
        return {"flops": 3 * count, "planned_temporary_bytes": planned.temp_size_in_bytes}

    def once(calls: int = 1) -> dict[str, float]:
        nonlocal state
        for _ in range(calls):
            state, metrics = step(state, clips)
        jax.block_until_ready(state)
        return {"loss": float(metrics["loss"])}

    return facts, once


@variant
def hf_step(job: Job, compiled: str = "") -> Variant:
    """A train step of transformers' model on normalised clips with masks that are there already.

    Parameters are in float32, and products in bfloat16 by autocast; `compiled`: see `hf_forward`.
    """
    import torch

    where = "cuda" if job.on == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high" if job.on == "gpu" else "highest")
    model = _hf_model(job, "float32").train()
    pixels = job.clips().transpose(0, 1, 4, 2, 3).copy()
    inputs = {"pixel_values": torch.from_numpy(pixels).to(where)}
    if job.model.pretraining:
        frames, height, width = job.model.clip
        grid = frames // 2, height // 16 * (width // 16)
        hidden = np.ones((job.batch, grid[1]), bool)
        keep = max(round(0.1 * grid[1]), 1)
        for row, rng in zip(hidden, np.random.default_rng(0).spawn(job.batch), strict=True):
            row[rng.permutation(grid[1])[:keep]] = False
        mask = np.repeat(hidden[:, None], grid[0], 1).reshape(job.batch, -1)
        inputs["bool_masked_pos"] = torch.from_numpy(mask).to(where)
    else:
        inputs["labels"] = torch.zeros(job.batch, dtype=torch.long, device=where)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING["lr"],
        weight_decay=LEARNING["weight_decay"],
        betas=(LEARNING["b1"], LEARNING["b2"]),
        eps=LEARNING["eps"],
        fused=True,
    )
    call = torch.compile(model, mode=compiled) if compiled else model

    def step() -> None:
        with torch.autocast(where, torch.bfloat16, enabled=job.dtype != "float32"):
            loss = call(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {}, _waited(job, step)


def matmul(library: str, size: int, dtype: str, on: str = "cpu") -> Variant:
    """A square matrix product of random numbers: what the machine can do at best."""
    numbers = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    facts = {"flops": 2 * size**3}
    if library == "jax":
        import jax

        a, b = (jax.device_put(x.astype(dtype)) for x in numbers)
        return facts, repeated(jax.jit(lambda a, b: a @ b), a, b)
    import torch

    torch.set_num_threads(cores())
    where = "cuda" if on == "gpu" else "cpu"
    a, b = (torch.from_numpy(x).to(where, getattr(torch, dtype)) for x in numbers)
    return facts, _waited(Job("", False, 1, dtype, on), lambda: a @ b)
