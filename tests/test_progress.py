"""Progress on a terminal and elsewhere."""

import io
import math

import pytest

from vidjax.progress import Progress, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_elsewhere():
    out = io.StringIO()
    progress = Progress("step", 4, 2, text="compiling", every=math.inf, out=out)
    progress.message("start")
    progress.advance(3)
    progress.report("loss 1.0", 3661)
    progress.close()
    assert out.getvalue() == "start\nstep 3/4  loss 1.0  01:01:01 left\n"


@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_lines_now_and_then(every):
    out = io.StringIO()
    progress = Progress("videos", 4, every=every, out=out)
    for done in (1, 2):
        progress.advance(done, f"{3 * done} windows")
    lines = ["videos 1/4  3 windows  00:00:00 left", "videos 2/4  6 windows  00:00:00 left"]
    assert out.getvalue().splitlines() == ([] if every else lines)


def test_a_bar_on_a_terminal():
    out = Terminal()
    progress = Progress("step", 4, text="compiling", out=out)
    progress.advance(2, "loss [1.0]")
    progress.message("a line")
    progress.close()
    shown = out.getvalue()
    assert "step 2/4" in shown and "loss [1.0]" in shown and "a line" in shown


def test_nothing_if_quiet():
    out = Terminal()
    progress = Progress("step", 4, every=0.0, out=out, quiet=True)
    progress.advance(1)
    progress.report("loss", 1.0)
    progress.message("a line")
    progress.close()
    assert not out.getvalue()


def test_items_are_tracked(capsys):
    assert list(track(iter("abc"), 3, "checked")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")  # it took no ten seconds
