"""Runs of vidjax.train in processes of their own, one or several, as a launcher starts them."""

import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parent.parent

# A model whose steps take milliseconds.
SMALL = (
    "--config=configs/videomae_k400.py:demo",
    *(f"--config.model.{key}=32" for key in ("width", "decoder_width")),
    *(f"--config.model.{key}=64" for key in ("mlp_dim", "decoder_mlp_dim")),
    *(f"--config.model.{key}=2" for key in ("depth", "num_heads", "decoder_num_heads")),
    "--config.model.decoder_depth=1",
    "--config.data.batch_size=16",
    "--config.data.frames=4",
    "--config.data.workers=0",
    "--config.optim.warmup_epochs=0",
    "--config.optim.warmup_steps=1",
    "--config.log_every=1",
)


def start(
    workdir: pathlib.Path, arguments: Sequence[str], *, processes: int = 1, devices: int = 8
) -> list[subprocess.Popen]:
    """Starts a run on that many devices in all; what it prints goes to workdir.N.log."""
    env = dict(os.environ, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices // processes))
    count = r"--xla_force_host_platform_device_count=\d+"  # of the tests' own process
    env["XLA_FLAGS"] = re.sub(count, "", env.get("XLA_FLAGS", ""))
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            env["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free.getsockname()[1]}"
        env["JAX_NUM_PROCESSES"] = str(processes)
    command = [sys.executable, "-m", "vidjax.train", f"--workdir={workdir}", *arguments]
    started = []
    for index in range(processes):
        with open(f"{workdir}.{index}.log", "w") as log:
            started.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=env | {"JAX_PROCESS_ID": str(index)} if processes > 1 else env,
                )
            )
    return started


def finish(running: Sequence[subprocess.Popen], seconds: float = 300) -> list[int]:
    """Exit codes."""
    try:
        return [process.wait(seconds) for process in running]
    finally:
        kill(running)


def kill(running: Sequence[subprocess.Popen]) -> None:
    for process in running:
        process.kill()
        process.wait()


def log(workdir: pathlib.Path, index: int = 0) -> str:
    return pathlib.Path(f"{workdir}.{index}.log").read_text()
