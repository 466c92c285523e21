"""Starts and continues the runs of a sweep, and collects their metrics.

    python -m experiments.launch --sweep=experiments/videomae_masking.py:demo --workdir=runs/masking
    python -m experiments.launch --sweep=... --workdir=... --target=local --parallel=2
    python -m experiments.launch --sweep=... --workdir=... --collect

A sweep is a file with a function `sweep(arg)`, which yields a dict for each of its runs:

    dict(name="lr0.001", config="configs/videomae_k400.py:B", overrides={"optim.lr": 1e-3})

It is plain Python: a random search is a loop that draws from random.Random(0). Every run is checked
against the real config before any of them starts. A run's folder is that of its name in --workdir;
one that is done is skipped and one that was cut off goes on, so the same command continues a sweep.

Targets:
    print   shows the commands.
    local   runs them on this machine, --parallel at once; their output is in WORKDIR/NAME.log.
            Each sees all accelerators, or --gpus of its own.
    slurm   writes WORKDIR/NAME.sbatch and submits it: one task on each of --nodes, with all of its
            --gpus. What follows a bare `--` become further #SBATCH lines.
    xpk     submits JobSets to TPU slices on GKE with xpk (1.16 or later). What follows a bare `--`
            goes to `xpk workload create`: --cluster, --docker-image, --storage and so on. xpk asks
            before it replaces a run that it knows: say no to it while that one is running.

The workdir of slurm must be the same folder on all hosts; that of xpk may be gs://BUCKET/FOLDER.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from absl import flags
from etils import epath

from experiments import collect
from vidjax import configlib, files
from vidjax.errors import EXIT_AGAIN, Again, UserError, run_main
from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.program import Program
from vidjax.training.workdir import check_same_run

_TAIL = 12  # lines of a failed run's log that are shown


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: unique in the sweep; the name of its folder.
        workdir: that folder.
        argv: its command line, which starts with "python".
        overrides: keys of the config that it sets, and the texts that they are set to.
        config: the config file and its argument.
    """

    name: str
    workdir: epath.Path
    argv: tuple[str, ...]
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)
    config: str = ""

    @property
    def log(self) -> epath.Path:
        """What it printed; beside its folder, which is its own."""
        return self.workdir.with_name(f"{self.name}.log")

    @property
    def done(self) -> bool:
        return (self.workdir / "DONE").exists()

    @property
    def job(self) -> str:
        """A name that no other run has on a cluster, as Kubernetes wants them: 40 of [a-z0-9-]."""
        place = os.fspath(files.absolute(self.workdir))
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        slug = re.sub("[^a-z0-9]+", "-", self.name.lower())[:28].strip("-")
        return f"{slug}-{digest}" if slug[0].isalpha() else f"r-{slug}-{digest}"


def runs(
    sweep: str, workdir: str | os.PathLike, settings: Iterable[str] = (), only: str = ""
) -> list[Run]:
    """The runs of a sweep, in its order.

    Args:
        sweep: "experiments/x.py:arg".
        workdir: folder of the sweep, or its URL in a bucket.
        settings: "key=value" texts, which all runs get besides their own.
        only: regex found in the names of the runs that are wanted.

    Raises:
        UserError: the file, a run, its name or a setting is wrong, or `only` fits none.
    """
    found = list(configlib.run_file(sweep, "experiment", "sweep"))
    if not found:
        raise UserError(f"{sweep} has no runs: its function sweep yields none")
    own: dict[str, set[str]] = collections.defaultdict(set)
    for i, item in enumerate(found):
        if not isinstance(item, dict) or set(item) != {"name", "config", "overrides"}:
            raise UserError(f"run {i} of {sweep} must be dict(name, config, overrides), not {item}")
        if not re.fullmatch(r"[A-Za-z0-9][\w.=-]{0,99}", item["name"], re.ASCII):
            raise UserError(
                f"run {i} of {sweep} must have a name of up to 100 letters, digits, '.', '_', '-' "
                f"and '=', not {item['name']!r}"
            )
        for key, value in item["overrides"].items():
            own[key].add(str(value))
    names = collections.Counter(item["name"].lower() for item in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"runs of {sweep} must have different names, but several are {twice[0]!r}")
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise UserError(f"--set={key} must be --set=KEY=VALUE, such as --set=train_steps=100")
        if len(own[key]) > 1:
            raise UserError(f"--set={key}=… is for all runs, but {key} is what {sweep} varies")
    shared = {key: value for key, _, value in pairs}
    made = []
    for item in found:
        overrides = {key: str(x) for key, x in item["overrides"].items()} | shared
        folder = epath.Path(workdir).expanduser() / item["name"]
        argv = ["python", "-m", "vidjax.train", f"--config={item['config']}"]
        argv += [f"--config.{key}={value}" for key, value in overrides.items()]
        argv.append(f"--workdir={folder}")
        made.append(Run(item["name"], folder, tuple(argv), overrides, item["config"]))
    chosen = [run for run in made if re.search(only, run.name)]
    if not chosen:
        raise UserError(f"--only={only} fits none of {', '.join(run.name for run in made)}")
    return chosen


def validate(run: Run, *, lists: str = "any") -> None:
    """Does what vidjax.train does before it needs a device: reads, builds and traces.

    Args:
        run: whose config is meant for as many devices as JAX has here.
        lists: what is asked of its lists of videos: nothing ("any"), that there is one to train on
            ("named"; it may lie elsewhere), or that they can be read ("read").

    Raises:
        UserError: the run could not start, or its folder has one of another config; the message
            names it.
    """
    try:
        config = configlib.of_command([x for x in run.argv if x.startswith("--config")])
        if (before := run.workdir / "config.json").exists():
            defaults = configlib.plain(configlib.base())
            check_same_run(before, configlib.plain(config), defaults)
        _trace(config, lists)
    except UserError as error:
        raise UserError(f"run {run.name}: {error}") from None
    except Exception as error:
        error.add_note(f"in run {run.name}: {shlex.join(run.argv)}")
        raise


def _trace(config: Any, lists: str) -> None:
    read = lists == "read"
    setup = Setup(config, without_lists=not read)
    if lists == "named" and not setup.splits.has("train"):
        raise UserError("no train videos: point --set=data.train=… at a list of them")
    if read:
        Program(setup)
        return
    # How many steps an epoch has is not known.
    total = config.train_steps or config.train_epochs
    warmup = config.optim.warmup_steps if config.train_steps else config.optim.warmup_epochs
    if total <= 0:
        raise UserError("set config.train_steps or config.train_epochs to train for some time")
    batch_size = config.data.batch_size
    Program(
        setup, optim.make_schedule(config.optim, batch_size=batch_size, total=total, warmup=warmup)
    )


def run_local(
    todo: Sequence[Run], *, parallel: int, gpus: int, max_restarts: int
) -> dict[str, int]:
    """Runs them as processes of this machine, `parallel` at once, and returns their exit codes.

    SIGTERM and Ctrl-C are passed on, and no other run is started; a second one kills. A run that
    ends with EXIT_AGAIN by itself is started again.

    Raises:
        Again: a signal came.
    """
    asked = []
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    waiting, free = collections.deque(todo), list(range(parallel))
    active: list[_Process] = []
    codes: dict[str, int] = {}
    try:
        while active or (waiting and not asked):
            while waiting and free and not asked:
                run, slot = waiting.popleft(), free.pop(0)
                active.append(_Process(run, slot, gpus))
                print(f"{run.name}: started, prints to {run.log}", flush=True)
            for process in list(active):
                process.pass_on(len(asked))
                code = process.poll()
                if code is None:
                    continue
                if code == EXIT_AGAIN and not asked and process.restarts < max_restarts:
                    process.restart()
                    continue
                active.remove(process)
                free.append(process.slot)
                name = process.run.name
                codes[name] = code
                print(
                    f"{name}: {'done' if code == 0 else f'exit code {code}'}; "
                    f"{len(active)} running, {len(waiting)} waiting",
                    flush=True,
                )
            time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        left = len(waiting) + sum(code == EXIT_AGAIN for code in codes.values())
        raise Again(f"stopped with {left} runs to go on with; the same command does it")
    return codes


class _Process:
    """A run that is running."""

    def __init__(self, run: Run, slot: int, gpus: int):
        self.run, self.slot, self.restarts, self._passed = run, slot, 0, 0
        self._env = dict(os.environ)
        if gpus:
            mine = range(slot * gpus, (slot + 1) * gpus)
            self._env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, mine))
        self._start()

    def _start(self) -> None:
        self.run.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, *self.run.argv[1:]]
        with self.run.log.open("a") as log:
            print(f"$ {shlex.join(argv)}", file=log, flush=True)
            # In a session of its own, as it is we who pass signals on: to it, not to its workers.
            self._popen = subprocess.Popen(
                argv, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def restart(self) -> None:
        self.restarts += 1
        self._start()

    def pass_on(self, signals: int) -> None:
        """Sends SIGTERM when the first of so many signals has come, kills at the second."""
        if signals >= 1 and self._passed == 0:
            self._popen.terminate()
        if signals >= 2 and self._passed < 2:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._passed = signals

    def poll(self) -> int | None:
        """The exit code as a shell says it, once it has ended."""
        code = self._popen.poll()
        if code is None:
            return None
        code = code if code >= 0 else 128 - code
        with self.run.log.open("a") as log:
            print(f"exit code {code}", file=log)  # collect looks for it
        return code


def sbatch_script(
    run: Run,
    *,
    nodes: int,
    gpus: int,
    cpus: int,
    grace: int,
    max_restarts: int,
    more: Sequence[str],
) -> str:
    """A script for sbatch: SIGTERM `grace` seconds before the end, and again after EXIT_AGAIN.

    A task that was killed (by a lost host, too) is tried again as well.
    """
    options = [
        f"--job-name={run.job}",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        f"--output={files.absolute(run.log)}",
        "--open-mode=append",
        f"--signal=TERM@{grace}",
        "--requeue",
        "--dependency=singleton",  # submitted twice, the second waits for the first
        *more,
    ]
    lines = "\n".join(f"#SBATCH {option}" for option in options)
    command = shlex.join(run.argv)
    srun = "srun" + (f" --cpus-per-task={cpus}" if cpus else "")  # which does not inherit it
    return f"""#!/bin/bash
{lines}

trap : TERM  # the tasks end at it; this shell stays to see how
cd {shlex.quote(os.getcwd())} || exit
{srun} {command}
code=$?
echo "exit code $code"
cut_off=$(( code == {EXIT_AGAIN} || code > 128 ))
if (( cut_off && ${{SLURM_RESTART_COUNT:-0}} < {max_restarts} )); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def xpk_command(
    run: Run, *, tpu_type: str, num_slices: int, grace: int, max_restarts: int, more: Sequence[str]
) -> list[str]:
    """The command that makes a JobSet of the run: a pod on each host of the slices.

    xpk itself restarts it after EXIT_AGAIN and after signals, at most `max_restarts` times, but
    never does so unless it is told to.
    """
    return [
        *("xpk", "workload", "create", f"--workload={run.job}", f"--tpu-type={tpu_type}"),
        *(f"--num-slices={num_slices}", f"--max-restarts={max_restarts}"),
        f"--termination-grace-period-seconds={grace}",
        *more,
        # xpk passes SIGTERM on to the shell, so the run must be in its place.
        f"--command=exec {shlex.join(run.argv)}",
    ]


def tpu_devices(tpu_type: str) -> int:
    """Devices of a TPU slice such as "v5litepod-256"; 0 if its name does not tell.

    The number in a name is that of the chips from v5e on, and that of the cores, two a chip, in
    older ones and v5p. A chip is one device in v4 and v5p, two in v2 and v3.
    """
    match = re.fullmatch(r"(v2|v3|v4|v5p|v5e|v5litepod|v6e)-(\d+)", tpu_type)
    if not match:
        return 0
    return int(match[2]) // (2 if match[1] in ("v4", "v5p") else 1)


def _devices(values: Any) -> int:
    """How many devices a run will have."""
    if values.devices:
        return values.devices
    if values.target == "slurm":
        return values.nodes * max(values.gpus, 1)
    if values.target == "xpk":
        if found := tpu_devices(values.tpu_type or "") * values.num_slices:
            return found
        raise UserError(
            f"--tpu_type={values.tpu_type} should be such as v5litepod-256; if it is right, say "
            f"with --devices how many devices its slices have for JAX"
        )
    if values.gpus:
        return values.gpus
    # In a process of its own: this one must not take the accelerators from the runs.
    command = [sys.executable, "-c", "import jax; print(jax.device_count())"]
    return int(subprocess.check_output(command, text=True).split()[-1])


def _need(program: str, fix: str) -> None:
    if not shutil.which(program):
        raise UserError(f"{program} was not found; {fix}, or look with --dry_run at what it would")


def _submit(todo: Sequence[Run], values: Any, more: Sequence[str]) -> None:
    """Hands runs to slurm or xpk, or shows what would be handed."""
    limits = dict(grace=values.grace, max_restarts=values.max_restarts, more=more)
    if values.target == "slurm":
        fix = "start this on a login node of the cluster"
        make = functools.partial(sbatch_script, nodes=values.nodes, gpus=values.gpus)
        make = functools.partial(make, cpus=values.cpus, **limits)
    else:
        fix = "install it with pip install xpk"
        make = functools.partial(xpk_command, tpu_type=values.tpu_type)
        make = functools.partial(make, num_slices=values.num_slices, **limits)
        if not (files.is_remote(todo[0].workdir) or todo[0].workdir.is_absolute()):
            raise UserError(
                f"--workdir={todo[0].workdir.parent} must be in a bucket or absolute with "
                f"--target=xpk: where the pods find the storage that they share"
            )
    if not values.dry_run:
        _need({"slurm": "sbatch"}.get(values.target, values.target), fix)
    failed = []
    for run in todo:
        made = make(run)
        if values.dry_run:
            print(made if values.target == "slurm" else shlex.join(made))
            continue
        if values.target == "slurm":
            script = run.workdir.with_name(f"{run.name}.sbatch")
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(made)
            made = ["sbatch", str(script)]
        print(f"{run.name}: {shlex.join(made[:2])} {run.job}", flush=True)
        if subprocess.run(made).returncode:
            failed.append(run.name)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(todo)} runs were not accepted ({', '.join(failed)}): see above"
        )


def _define_flags() -> None:
    flags.DEFINE_string("sweep", None, "Sweep, such as experiments/videomae_masking.py:demo.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; runs lie in it by their names.")
    flags.DEFINE_enum("target", "print", ["print", "local", "slurm", "xpk"], "Where it runs.")
    flags.DEFINE_string("only", "", "Regex of the names of the runs that are wanted.")
    flags.DEFINE_multi_string("set", [], "KEY=VALUE of the config for all runs; may be repeated.")
    flags.DEFINE_bool("dry_run", False, "slurm, xpk: print what would be submitted.")
    flags.DEFINE_integer("parallel", 1, "local: runs at once.", lower_bound=1)
    flags.DEFINE_integer("gpus", 0, "GPUs of a node; local: of a run.", lower_bound=0)
    flags.DEFINE_integer("nodes", 1, "slurm: nodes of a run.", lower_bound=1)
    flags.DEFINE_integer("cpus", 0, "slurm: cores of a node for a run.", lower_bound=0)
    flags.DEFINE_string("tpu_type", None, "xpk: slice, such as v5litepod-256.")
    flags.DEFINE_integer("num_slices", 1, "xpk: slices of a run.", lower_bound=1)
    flags.DEFINE_integer("devices", 0, "Devices of a run, where the target does not tell.")
    flags.DEFINE_integer("grace", 120, "slurm, xpk: seconds from SIGTERM to the end.")
    flags.DEFINE_integer("max_restarts", 20, "How often a run that was cut off is started again.")
    flags.DEFINE_bool("collect", False, "Only make a table and a plot of what there is.")
    flags.DEFINE_string("figure", "", "collect: what is plotted, such as val/top1.")
    flags.DEFINE_list("against", [], "collect: against which of the swept keys; all of them.")


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if values.target in ("local", "slurm") and files.is_remote(values.workdir or ""):
        raise UserError(
            f"--workdir={values.workdir} must be a folder with --target={values.target}, as logs "
            f"are written into it"
        )
    for name, example in (("sweep", "experiments/videomae_masking.py:demo"), ("workdir", "FOLDER")):
        if not values[name].value:
            raise UserError(f"say which {name}: --{name}={example}")
    folder = epath.Path(values.workdir).expanduser()
    try:
        folder.exists()
    except Exception as error:  # of whatever reads buckets
        raise UserError(
            f"--workdir={folder} cannot be read ({type(error).__name__}: {error}); install what "
            f"reads it, such as gcsfs, and log in to it"
        ) from error
    if argv[1:] and values.target not in ("slurm", "xpk"):
        raise UserError(f"unexpected {argv[1:]}; keys of the config are set by --set=KEY=VALUE")
    found = runs(values.sweep, values.workdir, values.set, values.only)
    if values.collect:
        collect.report(found, folder, values.figure, values.against)
        return
    devices = _devices(values)
    print(f"{len(found)} runs, checked for --devices={devices}", file=sys.stderr, flush=True)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_platforms", "cpu")
    lists = {"print": "any", "local": "read", "slurm": "named", "xpk": "named"}
    for run in found:
        validate(run, lists=lists[values.target])
    todo = [run for run in found if not run.done]
    # Not to stdout, which can be given to a shell.
    print(f"all fit their configs; {len(found) - len(todo)} are done", file=sys.stderr, flush=True)
    if values.target == "print":
        for run in todo:
            print(shlex.join(run.argv))
    elif todo and values.target == "local":
        limits = dict(gpus=values.gpus, max_restarts=values.max_restarts)
        codes = run_local(todo, parallel=values.parallel, **limits)
        failed = [run for run in todo if codes[run.name]]
        for run in failed:
            tail = run.log.read_bytes().decode(errors="replace").splitlines()[-_TAIL:]
            print(f"\n{run.name} failed; the end of {run.log}:", *tail, sep="\n  ")
        if failed:
            sys.exit(1)
    elif todo:
        _submit(todo, values, argv[1:])


if __name__ == "__main__":
    _define_flags()
    run_main(main)
