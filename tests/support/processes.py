"""Runs of vidjax.train in processes of their own, one or several, as a launcher starts them."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parents[2]

# A model whose steps take milliseconds; a config is made of it by update_from_flattened_dict.
SMALL = {
    **{"model.width": 32, "model.depth": 2, "model.num_heads": 2, "model.mlp_dim": 64},
    **{"model.decoder_width": 24, "model.decoder_depth": 1, "model.decoder_num_heads": 2},
    **{"model.decoder_mlp_dim": 48, "data.batch_size": 16, "data.frames": 4, "data.workers": 0},
    **{"optim.warmup_epochs": 0.0, "optim.warmup_steps": 1, "log_every": 1, "train_steps": 4},
}


def start(
    workdir: pathlib.Path,
    config: ConfigDict,
    *,
    processes: int = 1,
    devices: int = 8,
    program: Sequence[str] = ("-m", "vidjax.train"),
) -> list[subprocess.Popen]:
    """Starts a run on that many devices in all; what it prints goes to workdir.N.log."""
    content = json.dumps(config.to_dict())
    file = pathlib.Path(f"{workdir}.config.py")
    file.write_text(
        "import json\n\nfrom ml_collections import ConfigDict\n\n\n"
        f"def get_config(arg=None):\n    return ConfigDict(json.loads({content!r}))\n"
    )
    env = dict(os.environ, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices // processes))
    count = r"--xla_force_host_platform_device_count=\d+"  # of the tests' own process
    env["XLA_FLAGS"] = re.sub(count, "", env.get("XLA_FLAGS", ""))
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            env["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free.getsockname()[1]}"
        env["JAX_NUM_PROCESSES"] = str(processes)
        # As it is for users, whose hosts share no folder.
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, *program, f"--config={file}", f"--workdir={workdir}"]
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
