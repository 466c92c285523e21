"""`vidjax NAME ...`, which runs a module as `python -m MODULE ...` does."""

import ast
import os
import pathlib
import pkgutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence

import pytest

from tests.support import processes
from tests.support.videos import write_video
from tests.test_predict import NAMES, save
from vidjax import __main__ as command
from vidjax import __version__, configlib
from vidjax.errors import EXIT_AGAIN, UserError

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ("-c", "from vidjax.__main__ import main; main()")  # as pip writes it


def start(*arguments: str, program: Sequence[str] = SCRIPT, **options) -> subprocess.Popen:
    """Starts the script that pip installs, which need not be installed, or another program."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        **options,
    )


def answer(*arguments: str, **options) -> tuple[int, str, str]:
    """Returns the exit code of the script, what it prints, and its errors."""
    program = start(*arguments, **options)
    out, err = program.communicate(timeout=100)
    return program.returncode, out, err


def test_pip_installs_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert pkgutil.resolve_name(scripts["vidjax"]) is command.main


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_help_lists_the_commands(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vidjax", *arguments])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split(maxsplit=1) for line in lines if line.startswith("  ")]
    assert [name for name, _ in listed] == list(command.COMMANDS)
    for name, summary in listed:
        module = ROOT / f"{command.COMMANDS[name].replace('.', '/')}.py"
        assert summary == ast.get_docstring(ast.parse(module.read_text())).splitlines()[0]
        assert summary.endswith(".")
    assert max(map(len, lines)) <= 100


def test_help_imports_no_library():
    program = "-c", f"{SCRIPT[1]}; import sys; print(*sys.modules)"
    _, out, err = answer("--help", program=program)
    heavy = {"absl", "jax", "numpy", "ml_collections", "vidjax.errors", "converters"}
    assert not err and not heavy & set(out.splitlines()[-1].split())


def test_every_module_that_is_a_program_has_a_command():
    files = [p for d in ("vidjax", "converters", "experiments") for p in ROOT.glob(f"{d}/**/*.py")]
    programs = {p for p in files if "\n    run_main(" in p.read_text().replace("errors.", "")}
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in programs}
    # The one that converts in a process of its own is called by vidjax itself.
    assert modules - {"vidjax.sources"} == set(command.COMMANDS.values())


@pytest.mark.parametrize(("name", "module"), command.COMMANDS.items())
def test_help_of_a_command_is_that_of_its_module(name, module):
    ours = start(name, "--help")
    theirs = start("--help", program=("-m", module))
    out = ours.communicate(timeout=100)[0]
    assert out == theirs.communicate(timeout=100)[0]
    assert ours.returncode == theirs.returncode
    assert out.startswith(command._summary(module)) and "\nflags:\n" in out


@pytest.mark.parametrize("module", ["vidjax.train", "vidjax.eval", "vidjax.embed"])
def test_help_shows_flags_of_other_modules(module):
    name = module.removeprefix("vidjax.")
    out = answer(name, "--help")[1]
    assert "--coordinator" in out and ("--config:" in out) == (name != "embed")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("predcit", "did you mean 'predict'?"), ("evaluate", "did you mean 'eval'?")],
)
def test_an_unknown_command_is_one_sentence(name, hint):
    sentence = f"error: there is no command {name!r}; {hint}\n"
    assert answer(name, "--video=a.mp4") == (2, "", sentence)


def test_version():
    assert answer("--version") == (0, f"vidjax {__version__}\n", "")


def test_predict_through_the_script(tmp_path):
    """In a folder that is no checkout, with an answer and with an error."""
    folder = save(tmp_path / "model", NAMES, head="classify", num_classes=3)
    write_video(tmp_path / "a.mp4")
    model, video = f"--checkpoint={folder}", "--video=a.mp4"
    code, out, err = answer("predict", model, video, "--top_k=3", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("a.mp4\n") and all(name in out for name in NAMES)
    code, out, err = answer("predict", model, "--video=b.mp4", cwd=tmp_path)
    assert (code, out) == (2, "") and err.startswith("error: b.mp4 cannot be read as video: ")
    assert err.count("\n") == 1


def test_children_of_a_command_start(tmp_path):
    """They import the program's main module by its name."""
    write_video(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    code, _, err = answer("check", "list.csv", "--workers=1", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert '"verdict": "ok"' in (tmp_path / "list.manifest.jsonl").read_text()


def test_a_run_that_is_asked_to_end_saves_its_step(tmp_path, small):
    config = small(train_steps=100_000, log_every=1, data__workers=1)
    run = processes.start(tmp_path / "run", config, devices=1, program=(*SCRIPT, "train"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.stat().st_size) and run[0].poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run[0].send_signal(signal.SIGTERM)
    assert processes.finish(run, 100) == [EXIT_AGAIN], processes.log(tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


FILES = [
    ("config", "configs/videomae_ssv2_finetune.py", "get_config", "demo"),
    ("experiment", "experiments/videomae_masking.py", "sweep", "demo"),
]


@pytest.mark.parametrize(("kind", "file", "function", "arg"), FILES)
def test_installed_files_are_found_from_any_folder(
    kind, file, function, arg, tmp_path, monkeypatch
):
    here = configlib.run_file(f"{file}:{arg}", kind, function)
    monkeypatch.chdir(tmp_path)
    assert list(configlib.run_file(f"{file}:{arg}", kind, function)) == list(here)
    near = file.replace("videomae", "vidomae")
    with pytest.raises(UserError, match=f"no {kind} file {near}; did you mean '{file}'"):
        configlib.run_file(near, kind, function)
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(f"def {function}(arg):\n    return 'mine', arg\n")
    assert configlib.run_file(f"{file}:{arg}", kind, function) == ("mine", arg)
    for other in (f"mine/{file}", file.rpartition("/")[2]):
        with pytest.raises(UserError, match=f"no {kind} file {other}; "):
            configlib.run_file(other, kind, function)
