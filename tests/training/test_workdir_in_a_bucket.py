"""A workdir in a bucket: what the run itself writes there. Orbax's part is not tried: it asks
Google's servers through a library of its own."""

import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from vidjax.data import BadVideos
from vidjax.errors import UserError
from vidjax.journal import Journal
from vidjax.training.workdir import claim_workdir


class Bucket(MemoryFileSystem):
    """Objects in memory, without folders: as gcsfs has them."""

    protocol = "gs"
    store: dict = {}  # noqa: RUF012 - as in its base, one for all
    pseudo_dirs: list = [""]  # noqa: RUF012
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")

    def mkdir(self, path, create_parents=True, **kwargs):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def _open(self, path, mode="rb", **kwargs):
        if "a" in mode:
            raise NotImplementedError("objects cannot grow")
        parent = self._parent(path)
        if parent not in self.pseudo_dirs:
            self.pseudo_dirs.append(parent)  # what its base looks for before it writes
        try:
            return super()._open(path, mode, **kwargs)
        finally:
            self.pseudo_dirs.remove(parent)

    def rename(self, path, dst, recursive=False):
        self.mv(path, dst)


@pytest.fixture
def workdir(monkeypatch):
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(epath.backend.fsspec_backend, "fs", lambda path: Bucket())
    return epath.Path("gs://bucket/runs/one")


def test_a_new_workdir_is_claimed_and_claimed_again(workdir):
    config = {"seed": 0, "data": {"name": "k400"}}
    claim_workdir(workdir, config)
    claim_workdir(workdir, config)
    assert [path.name for path in workdir.iterdir()] == ["config.json"]
    (workdir / "checkpoints/5/_METADATA").write_text("{}")
    with pytest.raises(UserError, match="seed = 0 there, 1 now"):
        claim_workdir(workdir, config | {"seed": 1})
    with pytest.raises(UserError, match="is not empty and holds no run"):
        claim_workdir(workdir.parent, config)


def test_journals_grow(workdir):
    one, other = Journal(workdir / "a.jsonl"), Journal(workdir / "a.jsonl")
    one.add({"step": 1})
    other.add({"step": 2})
    one.add({"step": 3})
    assert [entry["step"] for entry in other.read()] == [1, 2, 3]
    one.rewrite([{"step": 1}])
    assert other.read() == [{"step": 1}]


def test_bad_videos_of_two_splits_are_in_one_list(workdir):
    train, val = (BadVideos(workdir / "bad_videos.jsonl", 10) for _ in range(2))
    train.add("a.mp4", "empty file")
    val.add("b.mp4", "no answer in 60 s")
    again = BadVideos(workdir / "bad_videos.1.jsonl", 10, 0.1, [workdir / "bad_videos.jsonl"])
    assert list(again.hanging) == ["b.mp4"]


def test_a_line_that_was_cut_off_stays_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"st')
    Journal(path).add({"step": 2})
    assert [entry["step"] for entry in Journal(path).read()] == [1, 2]
