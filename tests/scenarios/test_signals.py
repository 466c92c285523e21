"""Ctrl-C ends every command in one sentence and exit code 130; children end with their parents."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vidjax.data import segments

ROOT = pathlib.Path(__file__).parents[2]
SENTENCE = "interrupted; run the same command again\n"

PROGRAM = """
import contextlib, hashlib, os, sys, time
from vidjax import errors

def main(argv):
    try:
        print("ready", flush=True)
        {body}
    finally:
        time.sleep(0.2)
        open({mark!r}, "w").close()

errors.run_main(main)
"""

BODIES = {
    "asleep": "time.sleep(60)",
    "in C": "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 200_000_000)",
    "swallowed": """
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)""",
    "an error after it": """
        try:
            time.sleep(60)
        except BaseException:
            raise errors.UserError("another sentence")""",
    "again": """
        try:
            time.sleep(60)
        except BaseException:
            raise errors.Again("another sentence")""",
}


def start(code):
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # signals go to the group, as a terminal sends them
    )
    assert program.stdout.readline() == "ready\n", program.stderr.read()
    return program


@pytest.mark.parametrize("name", BODIES)
def test_ctrl_c(tmp_path, name):
    program = start(PROGRAM.format(body=BODIES[name], mark=str(tmp_path / "mark")))
    time.sleep(0.1)
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, out, err) == (130, "", SENTENCE)
    # What a command cleans up it has cleaned up, unless it takes too long.
    assert (tmp_path / "mark").exists() == (name not in ("in C", "swallowed"))


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.5])
def test_ctrl_c_twice(tmp_path, pause):
    program = start(PROGRAM.format(body=BODIES["swallowed"], mark=str(tmp_path / "mark")))
    os.killpg(program.pid, signal.SIGINT)
    time.sleep(pause)
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=20)
    assert (program.returncode, err) == (130, SENTENCE)


@pytest.mark.parametrize("taken", [True, False])
def test_the_first_one_may_be_taken(tmp_path, taken):
    body = f"""from vidjax import signals
        done = []
        signals.on_first_interrupt(lambda: done.append(1) or {taken})
        while not done:
            time.sleep(0.01)
        time.sleep(0.3)
        raise errors.Interrupted("step 3 is saved")"""
    program = start(PROGRAM.format(body=body, mark=str(tmp_path / "mark")))
    time.sleep(0.1)
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=20)
    assert (program.returncode, err) == (130, "step 3 is saved\n" if taken else SENTENCE)


def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    """A job that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = start(PROGRAM.format(body="time.sleep(1)", mark=str(tmp_path / "mark")))
    finally:
        signal.signal(signal.SIGINT, before)
    os.killpg(program.pid, signal.SIGINT)
    assert program.communicate(timeout=20) == ("", "")
    assert program.returncode == 0


@pytest.mark.parametrize("command", ["vidjax.predict", "converters.convert", "vidjax predict"])
def test_ctrl_c_while_modules_are_imported(command):
    program = subprocess.Popen(
        [sys.executable, "-v", "-m", *command.split()], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    for line in program.stderr:
        if line.startswith("import 'jax'") or "import 'numpy'" in line:
            break
    program.send_signal(signal.SIGINT)
    err = program.communicate(timeout=20)[1]
    assert program.returncode == 130
    assert SENTENCE in err and "Traceback" not in err  # -v prints until the process is silent


def test_children_end_with_a_parent_that_is_killed():
    code = """if True:
        import multiprocessing, time
        from vidjax.data import check

        if __name__ == "__main__":
            work = check.killable_map(time.sleep, [0, 60, 60, 60], 2, 60)
            next(work)
            print("ready", flush=True)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            next(work)"""
    program = start(code)
    children = [int(pid) for pid in program.stdout.readline().split()]
    assert len(children) == 2
    program.kill()
    program.wait()
    deadline = time.monotonic() + 10
    while any(map(_lives, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, children))
    assert program.stderr.read() == ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # nobody waits for it here
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no /dev/shm")
def test_shared_memory_of_dead_programs_is_removed():
    """And that of programs that live stays."""
    code = """if True:
        import time
        from multiprocessing import resource_tracker, shared_memory
        from vidjax.data import segments

        segments.name_by(segments.claim())
        memory = shared_memory.SharedMemory(create=True, size=10)
        resource_tracker.unregister(memory._name, "shared_memory")  # as if it were killed, too
        print("ready", flush=True)
        print(memory.name, flush=True)
        time.sleep(60)"""
    dead, living = start(code), start(code)
    names = [program.stdout.readline().strip() for program in (dead, living)]
    paths = [pathlib.Path("/dev/shm") / name for name in names]
    locks = [path.with_name(f"{path.name.rpartition('-')[0]}.lock") for path in paths]
    assert all(path.exists() for path in (*paths, *locks))
    dead.kill()
    dead.wait()
    segments.claim.cache_clear()
    mine = segments.claim()
    assert not paths[0].exists() and not locks[0].exists()
    assert paths[1].exists() and locks[1].exists()
    assert mine and mine not in names[1]
    living.kill()
    living.wait()
    segments.claim.cache_clear()
    segments.claim()
    assert not paths[1].exists() and not locks[1].exists()
