"""Damaged files: what was acknowledged is there, or the server refuses and says why."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from storage_model import SMALL, Model, dump, expected, open_engine, work_until

from zkd.errors import OperatorError
from zkd.storage.check import check
from zkd.storage.engine import Engine, LogBehind, TreeDamaged
from zkd.storage.log import LogReader
from zkd.storage.settings import StorageSettings

NO_RESERVE = replace(SMALL, reserve_bytes=0, flush_interval_s=3600)
LOG, WAL, MARK = "log/log.db", "log/log.db-wal", "log/log.mark"
TREE, TREE_WAL = "data/tree-1.db", "data/tree-1.db-wal"


@dataclass
class Image:
    """The files of a server that was killed, with what it had acknowledged."""

    folder: Path
    model: Model
    txns: list[Any]
    wal_end: int
    """Bytes of the log's WAL that are in use."""
    copies: int = 0

    def copy(self) -> Path:
        """A fresh copy to damage."""
        self.copies += 1
        target = self.folder / f"copy{self.copies}"
        shutil.copytree(self.folder / "image", target)
        return target


def killed(folder: Path, engine: Engine, model: Model, txns: list[Any]) -> Image:
    for part in ("data", "log"):
        shutil.copytree(folder / part, folder / "image" / part)
    for shm in (folder / "image").rglob("*-shm"):
        shm.unlink()
    end = 32 + engine.log.wal_frames * (24 + 4096)
    engine.close()
    return Image(folder, model, txns, end)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """60 rows, half of them in the tree and checkpointed, the rest in a WAL that was reused."""
    engine, model = open_engine(tmp_path, NO_RESERVE), Model()
    engine.open_incarnation()
    txns = [model.create(f"/n{i}", b"v" * 150) for i in range(30)]
    for txn in txns:
        engine.append([txn])
    engine.keeper._next = 1
    engine.work(0.1)
    work_until(engine, lambda: not engine.keeper.busy)
    engine.tree.flush()
    engine._claim()
    for i in range(30):
        txns.append(model.set(f"/n{i % 3}", bytes([i]) * 150))
        engine.append(txns[-1:])
    assert engine.log.wal_frames < 40, "the WAL was started again"
    return killed(tmp_path, engine, model, txns)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def verdict(folder: Path, image: Image, settings: StorageSettings = NO_RESERVE) -> str:
    """Opens; "refused" with a reason, "whole" if all that was acknowledged is there, "noticed" if
    something is not and `check` says so. Anything else fails the test."""
    try:
        engine = open_engine(folder, settings)
    except OperatorError as e:
        reason = e
    else:
        return _verdict_of_open(folder, image, engine)
    assert reason.where, reason
    assert reason.mend, reason
    return "refused"


def _verdict_of_open(folder: Path, image: Image, engine: Engine) -> str:
    engine.close()
    durable = engine.durable
    findings = check(folder / "data", folder / "log")
    try:
        log = LogReader(folder / "log" / "log.db")
        whole = [body for _, body in log.read(0)] == [t[5] for t in image.txns]
        log.close()
    except OperatorError:
        whole = False
    try:
        tree = dump(folder)
    except (apsw.Error, UnicodeDecodeError, TreeDamaged):
        tree = {}
    same = whole and durable == image.model.zxid
    same = same and tree == expected(image.model)
    assert same or findings, "lost something silently"
    return "whole" if same else "noticed"


def test_the_image_itself_is_whole(image: Image) -> None:
    assert verdict(image.copy(), image) == "whole"


def test_a_bit_flipped_anywhere_in_the_used_wal_is_refused(image: Image) -> None:
    for at in range(32 + 8, image.wal_end, 2999):
        copy = image.copy()
        flip(copy / WAL, at)
        assert verdict(copy, image) == "refused", at
        shutil.rmtree(copy)


def test_a_bit_flipped_behind_the_wals_end_harms_nothing(image: Image) -> None:
    size = (image.folder / "image" / WAL).stat().st_size
    for at in range(image.wal_end, size, 9973):
        copy = image.copy()
        flip(copy / WAL, at)
        assert verdict(copy, image) == "whole"
        shutil.rmtree(copy)


def test_a_wal_cut_at_any_place_is_refused_or_whole(image: Image) -> None:
    size = (image.folder / "image" / WAL).stat().st_size
    cuts = [*range(0, image.wal_end, 1511), image.wal_end - 1, image.wal_end, size - 1]
    for cut in cuts:
        copy = image.copy()
        with (copy / WAL).open("r+b") as f:
            f.truncate(cut)
        assert verdict(copy, image) == ("refused" if cut < image.wal_end else "whole"), cut
        shutil.rmtree(copy)


def test_a_bit_flipped_in_the_logs_main_file_is_never_silent(image: Image) -> None:
    found = set()
    for at in range(0, (image.folder / "image" / LOG).stat().st_size, 401):
        copy = image.copy()
        flip(copy / LOG, at)
        found.add(verdict(copy, image))
        shutil.rmtree(copy)
    assert found >= {"whole", "noticed"}


def test_a_bit_flipped_in_the_trees_wal_is_refused(image: Image) -> None:
    found = set()
    for at in range(40, 32 + 4120 * 3, 701):
        copy = image.copy()
        flip(copy / TREE_WAL, at)
        found.add(verdict(copy, image))
        shutil.rmtree(copy)
    assert found == {"refused"}


def test_a_bit_flipped_in_the_trees_main_file_is_never_silent(image: Image) -> None:
    db = apsw.Connection(str(image.folder / "image" / TREE))
    db.execute("SELECT count(*) FROM node").fetchall()
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    found = set()
    for at in range(0, (image.folder / "image" / TREE).stat().st_size, 401):
        copy = image.copy()
        flip(copy / TREE, at)
        found.add(verdict(copy, image))
        shutil.rmtree(copy)
    assert found >= {"whole", "noticed"}


def missing_rows(folder: Path, where: str) -> None:
    db = apsw.Connection(str(folder / LOG))
    db.execute(f"DELETE FROM txn WHERE {where}")
    db.close()


@pytest.mark.parametrize("where", ["zxid > 58", "zxid > 30", "zxid = 45", "zxid BETWEEN 31 AND 40"])
def test_missing_rows_are_refused_and_the_operator_may_go_on(image: Image, where: str) -> None:
    copy = image.copy()
    missing_rows(copy, where)
    with pytest.raises(LogBehind) as caught:
        open_engine(copy, NO_RESERVE)
    assert "accept-log-end" in caught.value.mend
    good = {"zxid > 58": 58, "zxid > 30": 30, "zxid = 45": 44}.get(where, 30)
    engine = open_engine(copy, replace(NO_RESERVE, accept_log_end=True))
    assert engine.durable == good
    assert "accepted" in engine.notes[0]
    engine.open_incarnation()
    engine.close()
    engine = open_engine(copy, NO_RESERVE)
    assert engine.durable == good
    engine.close()
    assert check(copy / "data", copy / "log") == []


def test_a_log_that_ends_before_the_tree_is_refused(image: Image) -> None:
    copy = image.copy()
    missing_rows(copy, "zxid > 20")
    (copy / MARK).unlink()
    with pytest.raises(LogBehind, match="before its own tree"):
        open_engine(copy, NO_RESERVE)
    engine = open_engine(copy, replace(NO_RESERVE, accept_log_end=True))
    assert (engine.durable, engine.log.meta.purged_to) == (30, 30)
    engine.close()


def test_a_member_of_an_ensemble_opens_and_must_synchronise(image: Image) -> None:
    copy = image.copy()
    missing_rows(copy, "zxid > 40")
    engine = open_engine(copy, replace(NO_RESERVE, commit_on_append=False))
    assert "0x3c was durable" in engine.must_synchronise
    engine.close()


def test_without_or_with_a_torn_mark_the_log_is_taken_as_it_is(image: Image) -> None:
    copy = image.copy()
    (copy / MARK).unlink()
    assert verdict(copy, image) == "whole"
    copy = image.copy()
    size = (copy / MARK).stat().st_size
    for at in (20, size // 2 + 20):
        flip(copy / MARK, at)
        assert verdict(copy, image) == "whole"


def test_an_older_mark_than_the_log_is_what_a_power_loss_leaves(image: Image) -> None:
    copy = image.copy()
    shutil.copy(copy / MARK, copy / "old")
    engine = open_engine(copy, NO_RESERVE)
    engine.open_incarnation()
    engine.append([image.model.copy().create("/late")])
    engine.close()
    shutil.copy(copy / "old", copy / MARK)
    engine = open_engine(copy, NO_RESERVE)
    assert engine.durable == 61
    engine.close()


def test_files_of_two_servers_do_not_go_together(image: Image, tmp_path: Path) -> None:
    open_engine(tmp_path / "other", NO_RESERVE).close()
    copy = image.copy()
    shutil.copy(tmp_path / "other" / TREE, copy / TREE)
    (copy / TREE_WAL).unlink()
    with pytest.raises(TreeDamaged, match="does not belong"):
        open_engine(copy, NO_RESERVE)


def test_an_older_copy_of_the_tree_goes_on_from_the_log(image: Image, tmp_path: Path) -> None:
    copy = image.copy()
    older = tmp_path / "older"
    engine = open_engine(older, NO_RESERVE)
    tree_id = engine.log.meta.id
    engine.close()
    assert tree_id
    (copy / TREE).unlink()
    (copy / TREE_WAL).unlink()
    with pytest.raises(TreeDamaged, match="not there"):
        open_engine(copy, NO_RESERVE)


def test_a_missing_tree_is_made_anew_from_a_whole_log_if_the_operator_says_so(
    image: Image,
) -> None:
    """snapshot.trust.empty: the log still begins with the first transaction."""
    copy = image.copy()
    (copy / TREE).unlink()
    (copy / TREE_WAL).unlink()
    engine = open_engine(copy, replace(NO_RESERVE, trust_empty=True))
    assert engine.replayed == 60
    engine.close()
    assert dump(copy) == expected(image.model)
    assert check(copy / "data", copy / "log") == []
    engine = open_engine(copy, NO_RESERVE)
    assert engine.durable == image.model.zxid
    engine.close()


def test_a_missing_tree_is_refused_whoever_trusts_it_if_the_log_has_been_purged(
    image: Image,
) -> None:
    copy = image.copy()
    engine = open_engine(copy, NO_RESERVE)
    engine.tree.flush()
    engine.log.purge(10, 10)
    engine.close()
    for name in (TREE, TREE_WAL):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(TreeDamaged, match="no longer begins with the first transaction"):
        open_engine(copy, replace(NO_RESERVE, trust_empty=True))


def test_a_tree_without_its_log_is_refused(image: Image) -> None:
    copy = image.copy()
    for path in (copy / "log").iterdir():
        path.unlink()
    with pytest.raises(OperatorError, match=r"no log\.db"):
        open_engine(copy, NO_RESERVE)


def test_apache_zookeepers_folder_is_not_hidden_by_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "data" / "version-2").mkdir(parents=True)
    (tmp_path / "data" / "version-2" / "snapshot.0").write_bytes(b"ZKSN")
    with pytest.raises(OperatorError, match=r"another dataDir|Apache ZooKeeper"):
        open_engine(tmp_path, NO_RESERVE)


def test_no_autocreate_needs_the_operators_permission(tmp_path: Path) -> None:
    careful = replace(NO_RESERVE, autocreate=False)
    with pytest.raises(OperatorError, match="initialize"):
        open_engine(tmp_path, careful)
    (tmp_path / "data" / "initialize").touch()
    open_engine(tmp_path, careful).close()
    assert not (tmp_path / "data" / "initialize").exists()
    open_engine(tmp_path, careful).close()
    with pytest.raises(OperatorError, match="mounted"):
        open_engine(tmp_path / "absent", replace(careful, create_folders=False))
