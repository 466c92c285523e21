"""Names of checkpoints: what each means, what is converted when, and how it fails."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

import vidjax
from converters import Options, convert, formats, hub, importing
from tests.support import hub as support
from vidjax import eval as evaluation
from vidjax import pretrained, sources, train
from vidjax.card import read_card
from vidjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests/goldens/videomae_finetune_meanpool/checkpoint-0.pth"
VIDEOPRISM = ROOT / "tests/goldens/videoprism_lvt/checkpoint.npz"
README = "---\nlicense: other\nlicense_name: research-only\nlicense_link: LICENSE\n---\n# A model\n"
LICENSE = "other (research-only, LICENSE)"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A folder of Hugging Face's layout, with a license."""
    folder = tmp_path_factory.mktemp("source")
    options = Options(heads=4, frames=10, size=32)
    convert.convert(str(GOLDEN), folder / "ours", options=options, say=lambda line: None)
    convert.convert(str(folder / "ours"), folder / "hf", say=lambda line: None)
    (folder / "hf/README.md").write_text(README)
    return folder / "hf"


@pytest.fixture(scope="module")
def expected(hugging_face, tmp_path_factory):
    """The folder that the converter's command makes of that one."""
    folder = tmp_path_factory.mktemp("expected") / "ours"
    convert.convert(str(hugging_face), folder, say=lambda line: None)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "vidjax"))
    return tmp_path / "vidjax/models"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    return support.offline(monkeypatch, tmp_path / "hub")


@pytest.fixture
def published(hub_cache, hugging_face):
    """A repository "org/name" in the local cache of the hub."""
    folder = support.snapshot(hub_cache, "org/name", COMMIT)
    shutil.copytree(hugging_face, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def source(tmp_path, hugging_face):
    """A local folder of Hugging Face's layout."""
    return pathlib.Path(shutil.copytree(hugging_face, tmp_path / "weights"))


def is_same(loaded, folder):
    """Whether a model is that of a folder, in every part but the time and place of conversion."""
    there = pretrained.load_model(folder)
    same = jax.tree.map(np.array_equal, loaded.params, there.params)
    ours, theirs = loaded.card, there.card
    return (
        jax.tree.all(same)
        and (ours.model, ours.preprocessing, ours.classes, ours.license)
        == (theirs.model, theirs.preprocessing, theirs.classes, theirs.license)
        and ours.provenance["files"] == theirs.provenance["files"]
    )


def entries(cache):
    """Returns the names of a cache's entries; there must be nothing unfinished beside them."""
    assert not [path for path in (cache / ".index").iterdir() if path.is_dir()]
    return {path.name for path in cache.iterdir() if path.name != ".index"}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("org/name", f"org/name@{COMMIT}"),
        ("org/name@main", f"org/name@{COMMIT}"),
        (f"org/name@{COMMIT}", None),
        ("org/name/model.safetensors", f"org/name@{COMMIT}/model.safetensors"),
    ],
)
def test_hub_ids_load_as_the_converted_folder(cache, expected, capsys, name, origin):
    loaded = vidjax.load_model(name)
    lines = capsys.readouterr().err.splitlines()
    assert is_same(loaded, expected)
    assert loaded.card.provenance["source"] == (origin or name)
    (entry,) = entries(cache)
    assert lines[0] == f"converting {name}, once"
    assert lines[-1] == (
        f"{name}: converted to {cache / entry} (commit {COMMIT[:12]}, videomae, "
        f"62,143 parameters, license {LICENSE})"
    )


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_local_weights_load_as_the_converted_folder(cache, source, tmp_path, name):
    (source / "README.md").unlink()  # that of a folder is not about a file in it
    convert.convert(str(source), tmp_path / "ours", say=lambda line: None)
    assert is_same(vidjax.load_model(source / name), tmp_path / "ours")
    assert len(entries(cache)) == 1


def test_a_folder_of_ours_needs_no_converters(expected, cache, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "converters", None)  # importing it would raise
    assert sources.find(expected) is expected
    assert vidjax.load_model(str(expected)).folder == str(expected)
    assert not cache.exists() and not capsys.readouterr().err


def test_a_converted_hub_id_needs_no_hub(cache, published, hub_cache, monkeypatch, capsys):
    first = sources.find("org/name")
    shutil.rmtree(hub_cache)
    monkeypatch.setattr(hub, "resolve", None)
    assert sources.find("org/name") == first
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"org/name: taken from {first} (commit {COMMIT[:12]}, videomae, ")


def test_a_hub_id_stays_at_its_commit_until_another_is_asked_for(
    cache, published, hub_cache, hugging_face
):
    first = sources.find("org/name")
    newer = support.snapshot(hub_cache, "org/name", COMMIT[::-1])
    shutil.copytree(hugging_face, newer, dirs_exist_ok=True)
    assert sources.find("org/name") == first
    second = sources.find("org/name@main")
    assert read_card(second).provenance["source"] == f"org/name@{COMMIT[::-1]}"
    assert sources.find("org/name") == sources.find(f"org/name@{COMMIT}") == first
    assert sources.find("org/name@main") == sources.find(f"org/name@{COMMIT[::-1]}") == second
    assert len(entries(cache)) == 2


def test_local_weights_that_changed_are_converted_again(cache, source, capsys):
    folder = sources.find(source)
    assert sources.find(f"{source}/") == sources.find(os.path.relpath(source)) == folder
    assert capsys.readouterr().err.count("converting") == 1
    config = json.loads((source / "config.json").read_text())
    config["id2label"] = {str(k): f"class {k}" for k in range(7)}
    (source / "config.json").write_text(json.dumps(config))
    assert sources.find(source) == folder
    assert read_card(folder).classes[3] == "class 3"
    assert capsys.readouterr().err.count("converting") == 1
    assert len(entries(cache)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, record: shutil.rmtree(folder),
        lambda folder, record: shutil.rmtree(folder / "params"),
        lambda folder, record: next((folder / "params").rglob("d/*")).write_bytes(b""),
        lambda folder, record: (folder / "model.json").unlink(),
        lambda folder, record: (folder / "model.json").write_text("{"),
        lambda folder, record: record.write_text("{"),
        lambda folder, record: record.write_text('{"entry": 3}'),
    ],
    ids=["entry", "params", "chunk", "no card", "card", "record", "record's keys"],
)
def test_damaged_entries_are_converted_again(cache, source, expected, damage):
    folder = pathlib.Path(sources.find(source))
    damage(folder, cache / ".index" / f"{folder.name}.json")
    assert is_same(vidjax.load_model(source), expected)
    assert entries(cache) == {folder.name}


def in_a_process(name, before="pass"):
    """Starts a process that finds a name, after some code."""
    code = (
        f"import os, time\nfrom vidjax import sources\nfrom converters import importing\n{before}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}print(sources.find({str(name)!r}))"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Replaces the last step of a conversion by waiting for a file.
SLOW = """
def verify(*_):
    while not os.path.exists({!r}):
        time.sleep(0.05)
importing.verify = verify
"""


def wait_until_it_converts(cache):
    limit = time.monotonic() + 60
    while not list(cache.glob(".index/*/model.json")):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_second_process_waits_and_takes_the_result(cache, source, tmp_path):
    first = in_a_process(source, SLOW.format(f"{tmp_path}/go"))
    wait_until_it_converts(cache)
    second = in_a_process(source, "importing.import_checkpoint = None")
    waiting = second.stderr.readline()
    assert waiting == f"waiting for another process, which converts {source}\n"
    sources.find(VIDEOPRISM)  # leaves what the first one is at work on
    (tmp_path / "go").touch()
    (folder, said), (other, heard) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), said + heard
    assert folder == other and folder.rstrip("\n") in map(str, cache.iterdir())
    assert len(entries(cache)) == 2
    assert ": converted to " in said
    assert ": taken from " in heard


def test_a_killed_conversion_is_no_obstacle(cache, source, expected, tmp_path):
    killed = in_a_process(source, SLOW.format("/no/such/file"))
    wait_until_it_converts(cache)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    left = [path for path in (cache / ".index").iterdir() if path.is_dir()]
    assert len(left) == 1
    sources.find(VIDEOPRISM)  # whatever is converted next removes it
    assert len(entries(cache)) == 1
    shutil.copytree(tmp_path / "weights", left[0])
    assert is_same(vidjax.load_model(source), expected)
    assert len(entries(cache)) == 2


def test_a_run_of_several_processes_converts_in_one_of_its_own(
    cache, source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setattr(importing, "import_checkpoint", None)
    assert pathlib.Path(sources.find(source)).parent == cache
    assert ": converted to " in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is no vidjax model: it has no model\.json, and no"):
        sources.find(tmp_path / "empty")


def test_results_of_published_weights_need_a_folder():
    command = [sys.executable, "-m", "vidjax.eval", "--checkpoint=org/name"]
    command += ["--config=configs/videomae_k400_finetune.py:demo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.endswith("org/name is no folder for results; give --output=FOLDER\n")


# Names, and what is said of them.
REFUSED = {
    "nothing": r"nothing is no vidjax model: nothing of that name is here; name a folder with a",
    "videoprism_public_v1_bas": r"\(did you mean 'videoprism_public_v1_base'\?\)",
    "/no/such/folder": r"/no/such/folder is no vidjax model: nothing of that name is here",
    "x" * 5000: r"is no vidjax model: nothing of that name",
    "other/name": r"other/name is neither a path here nor available .* HF_HUB_OFFLINE",
    "videoprism_public_v1_base": r"videoprism_public_v1_base \(google/.*\) is neither a path here",
    "org/name@v2": r"org/name@v2 is neither a path here nor available .* HF_HUB_OFFLINE",
    "org/name/weights.pth": r"is on the hub, or in its local cache, without weights\.pth",
    "unheard://a/b": r"unheard://a/b is no vidjax model: .* copy them to this machine",
}


@pytest.mark.usefixtures("published", "cache")
@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name[:30])
def test_names_of_nothing(name):
    with pytest.raises(UserError, match=REFUSED[name]):
        vidjax.load_model(name)


def test_sources_of_something_else(cache, hub_cache, tmp_path):
    bert = support.snapshot(hub_cache, "org/bert")
    (bert / "config.json").write_text('{"model_type": "bert"}')
    tensors = {"embeddings.weight": np.ones((3, 4), np.float32)}
    formats.write_safetensors(bert / "model.safetensors", tensors)
    with pytest.raises(UserError, match=r"^org/bert cannot be converted: it holds no weights of v"):
        vidjax.load_model("org/bert")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is no vidjax model: it has no model\.json, and no"):
        vidjax.load_model(tmp_path / "empty")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt cannot be converted: unknown kind of weight file"):
        vidjax.load_model(tmp_path / "a.txt")
    assert not entries(cache)


def test_an_undecided_source_asks_for_the_flag(cache):
    with pytest.raises(UserError, match=r"to decide that, run .* --to=FOLDER --heads=\.\.\. and "):
        vidjax.load_model(GOLDEN)
    assert not entries(cache)


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("RepositoryNotFoundError", 404, "there is no such repository, or it is private"),
        ("GatedRepoError", 403, "its publisher asks to accept terms first"),
        ("RevisionNotFoundError", 404, "the repository has no revision v2; check what follows"),
        ("HfHubHTTPError", 401, r"it refuses access \(HTTP 401\); log in"),
        ("HfHubHTTPError", 503, r"the hub does not answer \(HfHubHTTPError: no\); check"),
        (
            "ConnectionError",
            None,
            r"the hub does not answer \(ConnectionError: no\); check",
        ),
        ("OSError", None, r"local cache cannot be written \(No space left on device\)"),
    ],
)
def test_answers_of_the_hub(cache, monkeypatch, kind, status, message):
    import huggingface_hub
    from huggingface_hub import constants

    def refuse(*_, **__):
        if kind == "OSError":
            raise OSError(28, os.strerror(28))
        if status is None:
            raise ConnectionError("no")
        response = types.SimpleNamespace(status_code=status, headers={}, request=None)
        raise getattr(huggingface_hub.errors, kind)("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=f"^org/name@v2 is neither a path here .*: .*{message}"):
        vidjax.load_model("org/name@v2")


def test_files_that_are_there_do_where_others_are_missing(hub_cache, published, monkeypatch):
    import huggingface_hub

    def incomplete(*_, **__):
        error = FileNotFoundError("README.md is missing")
        error.snapshot_path = str(published)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", incomplete)
    assert hub.resolve("org/name").path == published


def test_a_cache_that_cannot_be_written(tmp_path, source, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/models, which cannot be written \(Not a "):
        sources.find(source)


def test_a_disk_that_is_full(cache, source, monkeypatch, expected):
    def fail(folder, params, card):
        folder.mkdir()
        (folder / "params").mkdir()
        raise ValueError("Error writing: No space left on device [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "save_pretrained", fail)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); mend"):
            sources.find(source)
    assert not entries(cache)
    assert is_same(vidjax.load_model(source), expected)


def test_notes_of_the_conversion_are_seen(cache, source, capsys):
    tensors = {name: np.array(x) for name, x in formats.read(source / "model.safetensors").items()}
    next(iter(tensors.values())).flat[0] = np.nan
    formats.write_safetensors(source / "model.safetensors", tensors)
    sources.find(source)
    assert "note: WARNING: 1 parameters hold NaN or infinity" in capsys.readouterr().err

    sources.find(VIDEOPRISM)
    *notes, command, _ = capsys.readouterr().err.splitlines()
    assert any(note.startswith("note: no vocabulary beside the weights") for note in notes)
    assert command == (
        f"note: to decide otherwise, run python -m converters.convert --from={VIDEOPRISM} "
        "--to=FOLDER --tokenizer=... and name FOLDER"
    )


@pytest.mark.usefixtures("published", "cache")
def test_a_run_starts_from_a_hub_id(small, demo_folder, tmp_path, expected):
    """Its config keeps the name, its card the license."""
    card = read_card(expected)
    sizes = {f"model__{key}": card.model[key] for key in ("width", "depth", "num_heads", "mlp_dim")}
    config = small("videomae_k400_finetune", evals=True, init="org/name", **sizes)
    config.model.patch_size = card.model["patch_size"]
    config.data.frames = card.preprocessing.frames
    config.train_steps = 2
    train.train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["init"] == "org/name"
    trained = read_card(tmp_path / "run")
    assert trained.license == LICENSE and trained.provenance["source"] == "org/name"

    lines = (demo_folder / "val.csv").read_text().splitlines(keepends=True)
    (tmp_path / "val.csv").write_text("".join(x for x in lines if x.strip()[-1] != "7"))
    config.data.update(val=str(tmp_path / "val.csv"), root=str(demo_folder))  # it has 7 classes
    found = evaluation.evaluate(config, "org/name", tmp_path / "out")
    assert (
        found
        and json.loads((tmp_path / "out/results.json").read_text())["checkpoint"] == "org/name"
    )
