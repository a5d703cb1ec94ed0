import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spine_ray.core.cache import (
    GB,
    RESERVE,
    SUM_BYTES,
    Hold,
    NoRoomError,
    Summed,
    build_entry,
    build_file,
    cache_budget,
    cache_folder,
    check_room,
    discard,
    entry_folder,
    evict,
    is_whole,
    try_build_file,
)
from tests.support.patience import PATIENCE_S, wait_for

Usage = namedtuple("Usage", "total used free")
CHUNK = b"x" * 1000
BUILDS = """
import sys
from pathlib import Path
from spine_ray.core.cache import Hold, build_entry, build_file, evict

def write(file, chunks, stop):
    for number in range(chunks):
        if number == stop:
            print("stopped", flush=True)
            sys.stdin.read()
        file.write(b"x" * 1000)
        file.flush()
    print("written", flush=True)

def entry(folder, chunks, stop=None):
    def fill(building):
        with (building / "data").open("wb") as file:
            write(file, chunks, stop)
    build_entry(Path(folder), fill)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))
    monkeypatch.delenv("SPINE_RAY_CACHE_GB", raising=False)
    return tmp_path


def other(code, *arguments):
    """Start another process that knows BUILDS; a with statement waits for its end."""
    command = [sys.executable, "-c", BUILDS + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def made_by_the_dead(sizes):
    """Build entries of so many thousand bytes in a process that ends: nobody holds them; the first is the oldest."""
    with other("for i in range(1, len(sys.argv), 2): entry(sys.argv[i], int(sys.argv[i + 1]))", *sum(sizes, ())) as it:
        it.communicate()
    assert it.returncode == 0
    for age, (folder, _) in enumerate(reversed(sizes)):
        os.utime(folder, (time.time() - 100 * (age + 1),) * 2)
    return [folder for folder, _ in sizes]


def hear(process, line):
    assert process.stdout.readline().decode() == f"{line}\n"


def fill(building):
    (building / "data").write_bytes(CHUNK)


def never(*_):
    raise AssertionError("built twice")


def test_the_cache_is_where_the_environment_says_else_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SPINE_RAY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "spine_ray"


@pytest.mark.parametrize(("given", "size"), [("2", 2 * GB), ("0.5", GB // 2), ("1e3", 1000 * GB)])
def test_the_budget_is_what_the_environment_says(cache, monkeypatch, given, size):
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", given)
    assert cache_budget() == size


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "lots", "10 GB", ""])
def test_a_budget_that_is_no_positive_number_is_refused_in_one_line(cache, monkeypatch, given):
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", given)
    with pytest.raises(ValueError, match=r"SPINE_RAY_CACHE_GB is .* must be a positive number") as refusal:
        cache_budget()
    assert "\n" not in str(refusal.value)


def test_the_budget_is_three_tenths_of_the_disk_without_the_cache_and_never_above_50_gb(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10 * GB))
    assert cache_budget() == 3 * GB
    build_entry(entry_folder("pixels", "one"), fill)
    build_entry(entry_folder("activations", "two"), fill)
    assert cache_budget() == 3 * GB + 600
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000 * GB))
    assert cache_budget() == 50 * GB


def test_an_entry_is_built_once_whoever_asks(cache):
    folder = entry_folder("pixels", "one")
    built = []

    def write(building):
        built.append(building)
        fill(building)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: build_entry(folder, write), range(4)))
    assert len(built) == 1
    assert folder == cache / "pixels" / "one"
    assert (folder / "data").read_bytes() == CHUNK


def test_a_file_is_built_once_whoever_asks(cache):
    folder = entry_folder("activations", "one")
    build_entry(folder, fill)
    built = []

    def write(file):
        built.append(file)
        file.write(CHUNK)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: build_file(folder / "rows", write), range(4)))
    assert len(built) == 1
    assert (folder / "rows").read_bytes() == CHUNK


def test_a_build_that_failed_leaves_nothing(cache):
    folder = entry_folder("pixels", "one")

    def broken(building):
        fill(building)
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        build_entry(folder, broken)
    assert [path.name for path in folder.parent.iterdir()] == ["one.lock"]
    build_entry(folder, fill)
    with pytest.raises(RuntimeError, match="no such picture"):
        build_file(folder / "rows", lambda file: broken(folder))
    assert {path.name for path in folder.iterdir()} == {"data", "held", "rows.lock"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said_in_one_line_and_nothing_is_left(cache):
    def overflow(*_):
        Path("/dev/full").write_bytes(CHUNK)

    folder = entry_folder("pixels", "one")
    with pytest.raises(NoRoomError, match=r"more is needed, but .* set SPINE_RAY_CACHE") as refusal:
        build_entry(folder, overflow)
    assert "\n" not in str(refusal.value)
    assert not folder.exists()
    build_entry(folder, fill)
    with pytest.raises(NoRoomError, match="set SPINE_RAY_CACHE"):
        build_file(folder / "rows", overflow)
    assert {path.name for path in folder.iterdir()} == {"data", "held", "rows.lock"}


BUILD_ENTRY = "entry(sys.argv[1], 20, int(sys.argv[2]))"
BUILD_FILE = "build_file(Path(sys.argv[1]) / sys.argv[3], lambda file: write(file, 20, int(sys.argv[2])))"


@pytest.mark.parametrize("chunks", [0, 1, 10, 19, 20])
@pytest.mark.parametrize("how", ["entry", "file"])
def test_a_builder_killed_at_any_moment_leaves_all_or_nothing(cache, how, chunks):
    folder = entry_folder("activations", "one")
    if how == "file":
        build_entry(folder, lambda building: None)
    with other(BUILD_ENTRY if how == "entry" else BUILD_FILE, folder, chunks, "data") as builder:
        hear(builder, "stopped" if chunks < 20 else "written")
        builder.kill()
    data = folder / "data"
    assert not data.exists() or (chunks == 20 and data.read_bytes() == 20 * CHUNK)  # it may just have ended

    def write(file):
        file.write(20 * CHUNK)

    if how == "entry":
        build_entry(folder, lambda building: (building / "data").write_bytes(20 * CHUNK))
    else:
        build_file(data, write)
    assert data.read_bytes() == 20 * CHUNK
    assert not list(cache.rglob("*.part"))


def test_a_file_that_another_builds_can_be_left_to_it(cache):
    folder = entry_folder("activations", "one")
    build_entry(folder, fill)
    with other(BUILD_FILE, folder, 10, "rows") as builder:
        hear(builder, "stopped")
        assert not try_build_file(folder / "rows", never)
        assert not (folder / "rows").exists()
        builder.stdin.close()
        build_file(folder / "rows", never)  # waits
        assert (folder / "rows").read_bytes() == 20 * CHUNK
    assert try_build_file(folder / "rows", never)
    assert try_build_file(folder / "others", lambda file: file.write(CHUNK))
    assert (folder / "others").read_bytes() == CHUNK


def test_an_entry_that_is_gone_cannot_be_held(cache):
    with pytest.raises(FileNotFoundError):
        Hold(entry_folder("activations", "one"))
    assert not list(cache.iterdir())


@pytest.mark.parametrize("build", [build_file, try_build_file])
def test_no_file_is_built_in_an_entry_that_is_gone(cache, build):
    with pytest.raises(FileNotFoundError):
        build(entry_folder("activations", "one") / "rows", lambda file: file.write(CHUNK))
    assert not list(cache.iterdir())


def test_the_longest_unused_entries_of_all_kinds_go_first_and_no_more_than_need_be(cache):
    one, two, three, four = made_by_the_dead(
        [
            (entry_folder("pixels", "1"), 3),
            (entry_folder("activations", "2"), 2),
            (entry_folder("pixels", "3"), 4),
            (entry_folder("activations", "4"), 1),
        ]
    )
    evict(10_000)
    assert all(folder.exists() for folder in (one, two, three, four))
    evict(9_999)
    assert not one.exists()
    evict(7_000)
    assert two.exists()
    evict(1_000)
    assert [folder.exists() for folder in (two, three, four)] == [False, False, True]
    evict(0)
    assert {path.name for path in cache.rglob("*")} == {
        "activations", "pixels", "evict.lock", "1.lock", "2.lock", "3.lock", "4.lock"
    }  # fmt: skip


def test_use_makes_an_entry_young_again(cache):
    one, two = made_by_the_dead([(entry_folder("pixels", "1"), 1), (entry_folder("pixels", "2"), 1)])
    with other("Hold(Path(sys.argv[1]))", one) as user:
        user.communicate()
    evict(1_000)
    assert one.exists()
    assert not two.exists()


def test_held_entries_survive_and_those_of_the_dead_do_not(cache):
    mine, theirs, nobodys = made_by_the_dead([(entry_folder("pixels", name), 1) for name in "123"])
    held = [Hold(mine), Hold(mine)]
    with other("held = Hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()", theirs) as user:
        hear(user, "held")
        evict(0)
        assert [folder.exists() for folder in (mine, theirs, nobodys)] == [True, True, False]
        user.kill()
    held.pop()
    evict(0)
    assert [folder.exists() for folder in (mine, theirs)] == [True, False]
    held.pop()
    evict(0)
    assert not mine.exists()


def test_an_entry_deleted_by_hand_and_built_anew_is_held_anew(cache):
    folder = entry_folder("pixels", "one")
    build_entry(folder, fill)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        Hold(folder)
    held = build_entry(folder, fill)
    evict(0)
    assert (folder / "data").read_bytes() == CHUNK
    assert held


@pytest.mark.parametrize("built_anew", [False, True])
def test_an_entry_that_goes_while_its_hold_waits_for_the_evictor_is_not_taken_for_held(cache, built_anew, monkeypatch):
    (folder,) = made_by_the_dead([(entry_folder("pixels", "1"), 1)])
    flock, waits = fcntl.flock, threading.Event()
    with (folder / "held").open("w") as mark, ThreadPoolExecutor(1) as threads:
        flock(mark, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", lambda *words: (waits.set(), flock(*words)))
        holding = threads.submit(Hold, folder)
        assert waits.wait(PATIENCE_S)
        folder.rename(folder.with_name("1.gone"))
        if built_anew:
            folder.mkdir()
            fill(folder)
        flock(mark, fcntl.LOCK_UN)
        assert isinstance(holding.exception(), FileNotFoundError) != built_anew
    evict(0)
    assert folder.exists() == built_anew


def test_what_is_held_while_another_evicts_stays_whole_and_the_rest_is_gone(cache):
    def some_are_held_in_time():
        folders = made_by_the_dead([(entry_folder("pixels", str(number)), 1) for number in range(60)])
        held, gone = {}, []
        with other("print('begun', flush=True); evict(0)") as evictor:
            hear(evictor, "begun")
            while folders[0].exists():
                pass
            for folder in reversed(folders):
                try:
                    held[folder] = Hold(folder)
                except FileNotFoundError:
                    gone.append(folder)
        assert evictor.returncode == 0
        assert gone
        assert all((folder / "data").read_bytes() == CHUNK for folder in held)
        assert not any(folder.exists() for folder in gone)
        return held

    wait_for(some_are_held_in_time)  # on a busy machine all may be gone before this process has its turn


def test_what_is_built_while_another_evicts_stays(cache):
    with other("print('begun', flush=True)\nwhile True: evict(0)") as evictor:
        hear(evictor, "begun")
        try:
            for number in range(50):
                held = build_entry(entry_folder("pixels", str(number)), fill)
                build_file(held.folder / "rows", lambda file: file.write(CHUNK))
                assert (held.folder / "data").read_bytes() == (held.folder / "rows").read_bytes() == CHUNK
            assert evictor.poll() is None
        finally:
            evictor.kill()


def test_eviction_clears_what_the_dead_left_and_nothing_of_the_living(cache):
    dead, living = entry_folder("pixels", "dead"), entry_folder("pixels", "living")
    with other(BUILD_ENTRY, dead, 10) as builder:
        hear(builder, "stopped")
        builder.kill()
    shutil.copytree(dead.with_name("dead.part"), dead.with_name("dead.gone"))
    with other(BUILD_ENTRY, living, 10) as builder:
        hear(builder, "stopped")
        evict(10 * GB)
        assert [path.name for path in (cache / "pixels").iterdir() if path.is_dir()] == ["living.part"]
        builder.communicate()
    assert builder.returncode == 0
    assert (living / "data").read_bytes() == 20 * CHUNK


def test_folders_that_are_not_the_cache_s_are_never_touched(cache):
    pictures = cache / "pixels" / "holidays"
    pictures.mkdir(parents=True)
    (pictures / "beach.png").write_bytes(CHUNK)
    (cache / "other" / "things").mkdir(parents=True)
    evict(0)
    assert (pictures / "beach.png").exists()
    assert (cache / "other" / "things").exists()


def test_what_is_discarded_is_built_anew_and_its_users_keep_what_they_have(cache):
    folder = entry_folder("pixels", "one")
    held = build_entry(folder, fill)
    with (folder / "data").open("rb") as user:
        discard(folder)
        assert not folder.exists()
        assert user.read() == CHUNK
    build_entry(folder, lambda building: (building / "data").write_bytes(b"other"))
    assert (folder / "data").read_bytes() == b"other"
    discard(folder / "data")
    assert {path.name for path in folder.iterdir()} <= {"held", "data.lock"}
    assert held


@pytest.mark.parametrize("content", [b"", b"a", CHUNK * 3000])
def test_a_file_with_its_checksum_is_whole_until_a_byte_changes_or_is_gone(tmp_path, content):
    path = tmp_path / "data"
    with path.open("wb") as file:
        summed = Summed(file)
        for start in range(0, len(content), 999_999):
            summed.write(content[start : start + 999_999])
        summed.close()
    written = path.read_bytes()
    assert written[:-SUM_BYTES] == content
    assert is_whole(path)
    changed = (written[:-1], b"", b"y" + written[1:] if content else b"1234", written + b"x")
    for number, damaged in enumerate(changed):
        other = tmp_path / str(number)
        other.write_bytes(damaged)
        assert not is_whole(other)


def test_room_is_what_the_disk_has_free_less_the_reserve(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, RESERVE + 5 * GB))
    folder = entry_folder("activations", "not there yet")
    check_room(folder, 5 * GB)
    with pytest.raises(NoRoomError) as refusal:
        check_room(folder, 5 * GB + 1)
    assert str(refusal.value) == (
        f"5.0 GB and a reserve of 1 GB are needed, but 6.0 GB are free on the disk of {folder}: "
        "set SPINE_RAY_CACHE to a folder on another disk"
    )


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_that_of_its_parents(cache):
    check_room(cache / "a" / "b", -RESERVE)
    check_room(Path("nowhere") / "b", -RESERVE)
