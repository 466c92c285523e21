"""Every sweep fits its configs; runs are started, stopped, gone on with; scripts do their part."""

import argparse
import glob
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from experiments import launch
from vidjax import configlib, models
from vidjax.card import Card, write_card
from vidjax.errors import EXIT_AGAIN, Again, UserError
from vidjax.preprocessing import Preprocessing

SWEEPS = sorted(
    {*glob.glob("experiments/*.py")} - {f"experiments/{x}.py" for x in ("launch", "collect")}
)
ENGINE = dict(grace=90, max_restarts=3, more=())


@pytest.fixture
def sweep(tmp_path):
    """sweep(text): the path of a sweep file whose function has this body."""

    def write(body):
        path = tmp_path / "sweep.py"
        path.write_text("def sweep(arg=None):\n" + "".join(f"    {x}\n" for x in body.split("\n")))
        return str(path)

    return write


def an_encoder(folder):
    sizes = dict(width=32, depth=2, num_heads=2, mlp_dim=64, eps=1e-6, patch_size=(2, 8, 8))
    model = models.build("videomae", head="classify", num_classes=8, clip=(4, 32, 32), **sizes)
    facts = Preprocessing(frames=4, size=32, short_side=32)
    folder.mkdir(parents=True)
    write_card(folder, Card(models.config_of(model), facts))


@pytest.mark.parametrize("arg", ["", "demo"])
@pytest.mark.parametrize("path", SWEEPS)
def test_every_sweep_fits_its_configs(path, arg, tmp_path):
    if "probe" in path and not arg:
        an_encoder(tmp_path / "encoders/a")
        arg = str(tmp_path / "encoders")
    if "scaling" in path and not arg:
        arg = "devices=8"
    settings = ["data.name=ucf101"] if "probe" in path else []
    found = launch.runs(f"{path}:{arg}", tmp_path / "sweep", settings)
    assert len({run.job for run in found}) == len(found) > 1
    assert all(run.workdir == tmp_path / "sweep" / run.name for run in found)
    if "probe" in path and arg != "demo":
        assert [run.name for run in found] == ["a_attention", "a_mean"]
        config = configlib.of_command(found[0].argv[3:-1])
        assert (config.data.frames, config.data.size) == (4, 32)
    launch.validate(found[0 if arg == "demo" else -1])  # others differ in numbers only


def test_paper_and_scaling_values():
    found = launch.runs("experiments/videomae_masking.py", "w")
    depths = {run.overrides["model.decoder_depth"] for run in found}
    assert depths == set("1248") and len(found) == 7
    tuned = launch.runs("experiments/videomae_masking.py:pretrained=runs/masking", "w2")
    assert [run.overrides["init"] for run in tuned] == [f"runs/masking/{r.name}" for r in found]
    scaled = launch.runs("experiments/batch_lr_scaling.py:H,devices=512", "w")
    by_name = {run.name: run.overrides for run in scaled}
    assert len(scaled) == 11 and "batch256_sqrt" not in by_name
    assert float(by_name["batch4096_linear"]["optim.lr"]) == pytest.approx(16 * 1.5e-4)
    assert float(by_name["batch4096_sqrt"]["optim.lr"]) == pytest.approx(4 * 1.5e-4)
    mesh = {key: by_name["batch256_linear"][f"mesh.{key}"] for key in ("fsdp", "tensor")}
    assert mesh == {"fsdp": "8", "tensor": "2"}
    assert by_name["batch8192_linear"]["grad_accum"] == "1"


RUN = 'yield dict(name="{}", config="configs/videomae_k400.py:demo", overrides={})'


@pytest.mark.parametrize(
    ("body", "settings", "message"),
    [
        (RUN.format("a", {"optim.lrr": 1}), (), r"run a: unknown config key 'optim.lrr'.*optim.lr"),
        (RUN.format("a", {"optim.lr": "fast"}), (), "run a: config.optim.lr must be a number"),
        (RUN.format("a", {}), ("train_steps=soon",), "run a: config.train_steps must be an int"),
        (RUN.format("a", {"data.batch_size": 12}), (), "run a: .*batch_size = 12"),
        (RUN.format("a", {"mesh.data": 3}), (), "run a: .*does not make 8 devices"),
        (RUN.format("a", {"optim.warmup_steps": 900}), (), "run a: .*warm-up of 900"),
        (RUN.format("a", {"train_steps": 0}), (), "run a: set config.train_steps"),
        (RUN.format("a", {"optim.name": "lion"}), (), "run a: .*optim.name"),
        (RUN.format("a", {"init": "typo"}), (), "run a: typo is no vidjax model"),
        (RUN.replace("videomae_k400.py", "videomae_k4.py").format("a", {}), (), "videomae_k400.py"),
        (RUN.format("a b", {}), (), "run 0 .* must have a name .* not 'a b'"),
        (RUN.format("../a", {}), (), "must have a name"),
        (f"{RUN.format('a', {})}\n{RUN.format('A', {})}", (), "different names.*'a'"),
        ('yield dict(name="a", lr=1)', (), r"run 0 .* must be dict\(name, config, overrides\)"),
        (RUN.format("a", {}), ("train_steps",), "must be --set=KEY=VALUE"),
        (
            f"{RUN.format('a', {'seed': 1})}\n{RUN.format('b', {'seed': 2})}",
            ("seed=3",),
            "seed is what .* varies",
        ),
    ],
)
def test_a_sweep_that_cannot_run(sweep, tmp_path, body, settings, message):
    with pytest.raises(UserError, match=message):
        for run in launch.runs(sweep(body), tmp_path / "w", settings):
            launch.validate(run)


def test_what_else_is_refused(sweep, tmp_path):
    with pytest.raises(UserError, match="did you mean 'experiments/videomae_masking"):
        launch.runs("experiments/videomae_mask.py", tmp_path)
    with pytest.raises(UserError, match=r"must define sweep\(arg\)"):
        launch.runs("experiments/collect.py", tmp_path)
    with pytest.raises(UserError, match="fits none of a"):
        launch.runs(sweep(RUN.format("a", {})), tmp_path, only="b")
    (run,) = launch.runs(
        sweep(RUN.replace(":demo", "").format("a", {"data.name": "k400"})), tmp_path
    )
    launch.validate(run)
    with pytest.raises(UserError, match="run a: no train videos"):
        launch.validate(run, lists="named")
    (run,) = launch.runs(sweep(RUN.format("a", {})), tmp_path, ["data.train=none.csv"])
    launch.validate(run, lists="named")
    with pytest.raises(UserError, match=r"run a: .*none\.csv"):
        launch.validate(run, lists="read")


def test_bugs_keep_their_traceback_and_name_the_run(sweep, tmp_path, monkeypatch):
    (run,) = launch.runs(sweep(RUN.format("a", {})), tmp_path)
    monkeypatch.setattr(launch, "Setup", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        launch.validate(run)
    assert raised.value.__notes__ == [f"in run a: {shlex.join(run.argv)}"]


def test_a_folder_with_another_config(sweep, tmp_path):
    (run,) = launch.runs(sweep(RUN.format("a", {"seed": 1})), tmp_path)
    (run.workdir / "checkpoints/5").mkdir(parents=True)
    config = json.loads(json.dumps(configlib.of_command(run.argv[3:-1]).to_dict()))
    (run.workdir / "config.json").write_text(json.dumps(config | {"log_every": 7}))
    launch.validate(run)
    (run.workdir / "config.json").write_text(json.dumps(config | {"seed": 2}))
    with pytest.raises(UserError, match=r"run a: .*another config \(seed = 2 there, 1 now"):
        launch.validate(run)


def stub(folder, name, code):
    """A run that executes `code`, with `folder` and `name` at hand, instead of training."""
    head = f"import pathlib, signal, sys, time; folder = pathlib.Path({str(folder)!r}); "
    return launch.Run(name, epath.Path(folder) / name, ("python", "-c", head + code))


def local(runs, **options):
    return launch.run_local(runs, **{"parallel": 2, "gpus": 0, "max_restarts": 2} | options)


def test_local_runs_are_bounded_restarted_and_reported(tmp_path, capsys):
    again = (
        "p = folder / 'tries'; n = p.exists(); p.touch(); print('try', n); sys.exit(0 if n else 42)"
    )
    busy = """
mine = folder / NAME; mine.touch(); time.sleep(0.3)
assert len(list(folder.glob('busy*.now'))) <= 2; mine.unlink()"""
    todo = [stub(tmp_path, "again", again), stub(tmp_path, "bad", "print('why'); 1 / 0")]
    todo.append(stub(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"))
    todo.append(stub(tmp_path, "never", "sys.exit(42)"))
    for i in range(4):
        todo.append(stub(tmp_path, f"busy{i}", busy.replace("NAME", repr(f"busy{i}.now"))))
    codes = local(todo)
    ends = {"again": 0, "bad": 1, "killed": 137, "never": EXIT_AGAIN}
    assert codes == ends | {f"busy{i}": 0 for i in range(4)}
    log = todo[0].log.read_text()
    assert log.index("try False") < log.index("exit code 42") < log.index("try True")
    assert log.endswith("exit code 0\n")
    assert "ZeroDivisionError" in todo[1].log.read_text()
    assert todo[3].log.read_text().count("exit code 42") == 3  # and two restarts
    assert "bad: exit code 1" in capsys.readouterr().out


def test_gpus_are_shared_out(tmp_path):
    code = "import os; print('mine', os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
    todo = [stub(tmp_path, name, code) for name in "abc"]
    local(todo, gpus=2)
    seen = [run.log.read_text().split("mine ")[-1].split("\n")[0] for run in todo]
    assert seen[:2] == ["0,1", "2,3"] and seen[2] in seen[:2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(tmp_path, number):
    code = """
def end(*_): (folder / 'saved').touch(); sys.exit(42)
signal.signal(signal.SIGTERM, end); (folder / 'ready').touch(); time.sleep(60)"""
    todo = [stub(tmp_path, "a", code), stub(tmp_path, "b", "pass")]

    def ask():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    before = signal.getsignal(number)
    with pytest.raises(Again, match="2 runs to go on with"):
        local(todo, parallel=1)
    thread.join()
    assert (tmp_path / "saved").exists() and not todo[1].log.exists()
    assert signal.getsignal(number) is before


def test_a_second_signal_kills(tmp_path):
    code = "signal.signal(15, signal.SIG_IGN); (folder / 'ready').touch(); time.sleep(60)"

    def ask():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(Again):
        local([stub(tmp_path, "a", code)])
    thread.join()
    assert (tmp_path / "a.log").read_text().endswith("exit code 137\n")


def a_run(tmp_path, name="Ratio0.9_decay-x"):
    argv = ("python", "-m", "vidjax.train", "--config=c.py:B", "--config.optim.rates=(('a', 0.1),)")
    workdir = epath.Path(tmp_path) / "my runs" / name
    return launch.Run(name, workdir, (*argv, f"--workdir={workdir}"))


@pytest.mark.parametrize(
    ("code", "tries", "requeued"),
    [(0, 0, False), (2, 0, False), (EXIT_AGAIN, 0, True), (137, 2, True), (EXIT_AGAIN, 3, False)],
)
def test_sbatch_script(tmp_path, code, tries, requeued):
    run = a_run(tmp_path)
    script = launch.sbatch_script(run, nodes=2, gpus=8, cpus=32, **ENGINE | {"more": ["--time=9"]})
    options = [line.split(" ", 1)[1] for line in script.splitlines() if line.startswith("#SBATCH")]
    wanted = {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=32"}
    assert wanted | {"--signal=TERM@90", "--requeue", "--time=9"} <= set(options)
    assert f"--output={run.log}" in options
    # What srun would be given, and what the script does after it.
    srun = f'printf "%s\\n" "$@" > {shlex.quote(str(tmp_path / "srun"))}; exit {code}'
    for name, body in (("srun", srun), ("scontrol", f"echo $* > '{tmp_path}/scontrol'")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    env |= {"SLURM_RESTART_COUNT": str(tries)} if tries else {}
    done = subprocess.run(["bash"], input=script, text=True, env=env, capture_output=True)
    assert done.returncode == code and done.stdout == f"exit code {code}\n" and not done.stderr
    given = (tmp_path / "srun").read_text().splitlines()
    assert given == ["--cpus-per-task=32", *run.argv]
    assert (tmp_path / "scontrol").exists() == requeued
    assert not requeued or (tmp_path / "scontrol").read_text() == "requeue 77\n"


def test_sigterm_leaves_the_batch_shell(tmp_path):
    """It must still be there when the tasks have saved and ended."""
    script = launch.sbatch_script(a_run(tmp_path), nodes=1, gpus=0, cpus=0, **ENGINE)
    assert "--gpus-per-node" not in script and "--cpus-per-task" not in script
    (tmp_path / "srun").write_text(f"#!/bin/bash\ntouch '{tmp_path}/on'; sleep 0.5; exit 42\n")
    (tmp_path / "scontrol").write_text(f"#!/bin/bash\ntouch '{tmp_path}/requeued'\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job").write_text(script)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    shell = subprocess.Popen(["bash", str(tmp_path / "job")], env=env, stdout=subprocess.DEVNULL)
    while not (tmp_path / "on").exists():
        time.sleep(0.02)
    shell.terminate()
    assert shell.wait() == EXIT_AGAIN and (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("tpu_type", "devices"),
    [("v5litepod-256", 256), ("v6e-16", 16), ("v4-32", 16), ("v5p-8", 4), ("v3-8", 8), ("h100", 0)],
)
def test_devices_of_a_slice(tpu_type, devices):
    assert launch.tpu_devices(tpu_type) == devices


def test_job_names_suit_kubernetes(tmp_path):
    names = ["a" * 100, "Ratio0.9_decay-x", "0.9", "a.", "a_"]
    jobs = [a_run(tmp_path, name).job for name in names]
    assert len(set(jobs)) == len(jobs) and jobs == [a_run(tmp_path, name).job for name in names]
    for job in jobs:
        assert len(job) <= 40 and job[0].isalpha() and job[0].islower() and job[-1] != "-"
        assert set(job) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert a_run(tmp_path / "other", "a.").job not in jobs


def xpk_command(run, *more):
    engine = dict(tpu_type="v5litepod-256", num_slices=2, grace=90, max_restarts=3)
    return launch.xpk_command(run, **engine, more=["--cluster=tpus", "--docker-image=i:1", *more])


def test_xpk_command(tmp_path):
    run = a_run(tmp_path)
    command = xpk_command(run)
    assert command[:3] == ["xpk", "workload", "create"]
    options = dict(x[2:].split("=", 1) for x in command[3:])
    assert options.pop("command").startswith("exec python -m vidjax.train ")
    assert shlex.split(command[-1].partition("exec ")[2]) == list(run.argv)
    assert options == {
        "workload": run.job, "tpu-type": "v5litepod-256", "num-slices": "2", "max-restarts": "3",
        "termination-grace-period-seconds": "90", "cluster": "tpus", "docker-image": "i:1",
    }  # fmt: skip


def test_runs_in_a_bucket(sweep):
    """They are named and checked without it."""
    (run,) = launch.runs(sweep(RUN.format("a", {})), "gs://bucket/w")
    assert run.argv[-1] == "--workdir=gs://bucket/w/a" and run.job.startswith("a-")
    assert "--workdir=gs://bucket/w/a" in xpk_command(run)[-1]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("xpk"), reason="xpk is not on the PATH")
def test_xpk_renders_a_job_set(tmp_path, monkeypatch):
    """xpk itself reads the command, which it would give to the cluster."""
    yaml = pytest.importorskip("yaml")
    monkeypatch.setenv("HOME", str(tmp_path))
    run, manifest = a_run(tmp_path), tmp_path / "job_set.yaml"
    dry = ("--project=p", "--project-number=1", "--zone=us-east5-a", "--dry-run")
    dry += ("--skip-validation", f"--output-manifest-file={manifest}")
    subprocess.run(xpk_command(run, *dry), check=True, stdout=subprocess.DEVNULL)
    found = yaml.safe_load(manifest.read_text())
    assert (found["kind"], found["metadata"]["name"]) == ("JobSet", run.job)
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 3
    (job,) = found["spec"]["replicatedJobs"]
    job_spec = job["template"]["spec"]
    assert (job["replicas"], job_spec["parallelism"], job_spec["completions"]) == (2, 64, 64)
    (rule,) = job_spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "NotIn"
    assert {EXIT_AGAIN, 134, 137, 143} <= set(rule["onExitCodes"]["values"])
    assert 2 not in rule["onExitCodes"]["values"]  # wrong input: nothing to try again
    pod = job_spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 90
    (container,) = pod["containers"]
    lines = [line.strip() for line in container["command"][-1].splitlines()]
    (line,) = [line for line in lines if "vidjax.train" in line]
    inner = line.removeprefix("(").partition(") & PID")[0]
    assert shlex.split(inner) == ["exec", *run.argv]


# One device, as on a laptop; programs are compiled fast rather than well.
ENV = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def launch_command(*arguments):
    command = [sys.executable, "-m", "experiments.launch", *arguments]
    return subprocess.run(command, text=True, capture_output=True, env=ENV)


@pytest.mark.slow
def test_a_sweep_by_hand(tmp_path, demo_folder):
    """Real runs, stopped in the middle, gone on with, and collected."""
    common = ("--sweep=experiments/batch_lr_scaling.py:demo", f"--workdir={tmp_path / 'w'}")
    common += ("--only=batch8_linear|batch16_sqrt", "--set=log_every=1", "--target=local")
    common += ("--set=evals.val.every=0", "--set=evals.pictures.every=0", "--parallel=2")
    common += ("--set=train_steps=40", "--set=train_epochs=0.0", "--set=optim.warmup_epochs=0.0")
    common += tuple(f"--set=data.{x}={demo_folder / x}.csv" for x in ("train", "val"))
    command = [sys.executable, "-m", "experiments.launch", *common]
    pipe = subprocess.PIPE
    first = subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe, env=ENV)
    logs = [tmp_path / "w" / name / "metrics.jsonl" for name in ("batch8_linear", "batch16_sqrt")]
    while not all(log.exists() and log.read_text().count("\n") > 3 for log in logs):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.terminate()
    out, err = first.communicate()
    assert first.returncode == EXIT_AGAIN and "2 runs to go on with" in err, (out, err)
    found = launch_command(*common, "--collect")
    assert found.stdout.count("stopped") == 2
    second = launch_command(*common)
    assert second.returncode == 0, (second.stdout, second.stderr)
    assert all("continuing at step" in (log.parent.parent / f"{log.parent.name}.log").read_text()
               for log in logs)  # fmt: skip
    third = launch_command(*common)
    assert "2 are done" in third.stderr and "started" not in third.stdout
    found = launch_command(*common, "--collect")
    assert found.stdout.count(" done ") == 2 and "val/loss" in found.stdout
    assert pathlib.Path(tmp_path / "w" / "results.csv").exists()


def test_pods_need_a_folder_that_they_all_see(tmp_path, capsys, monkeypatch):
    values = argparse.Namespace(
        target="xpk", dry_run=True, tpu_type="v5e-8", num_slices=1, grace=60, max_restarts=3
    )
    monkeypatch.chdir(tmp_path)
    for place, fits in (("w/a", False), (tmp_path / "a", True), ("gs://bucket/w/a", True)):
        run = launch.Run("a", epath.Path(place), ("python", f"--workdir={place}"))
        if fits:
            launch._submit([run], values, [])
            assert f"--workdir={place}" in capsys.readouterr().out
        else:
            with pytest.raises(UserError, match="must be in a bucket or absolute"):
                launch._submit([run], values, [])


@pytest.mark.slow
def test_targets_by_hand(tmp_path):
    sweep = ("--sweep=experiments/videomae_masking.py", f"--workdir={tmp_path}", "--only=depth4")
    printed = launch_command(*sweep)
    lines = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert [line[:3] for line in lines] == 4 * [["python", "-m", "vidjax.train"]]
    data = ("--set=data.train=a.csv", "--dry_run")
    slurm = launch_command(
        *sweep, *data, "--target=slurm", "--nodes=2", "--gpus=8", "--", "--time=9"
    )
    assert slurm.stdout.count("#!/bin/bash") == slurm.stdout.count("#SBATCH --time=9") == 4
    slices = ("--target=xpk", "--tpu_type=v5litepod-256", "--", "--cluster=tpus")
    xpk = launch_command(*sweep, *data, *slices)
    assert xpk.stdout.count("--cluster=tpus") == 4, xpk.stderr
    wrong = launch_command(*sweep, *data, "--set=data.batch_size=100", *slices)
    assert wrong.returncode == 2 and "must divide into 256 devices" in wrong.stderr
    assert "unexpected" in launch_command(*sweep, "stray").stderr
    assert "data.train" in launch_command(*sweep, *slices).stderr
