"""One writer per output: whose lock is free, waiting for it, losing it, and never two writers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

import fsspec.config
import numpy as np
import pytest

from rarkit.cache.holder import Holder
from rarkit.cache.lock import Times
from rarkit.cache.output_lock import OutputLock
from rarkit.cache.store import Store
from rarkit.errors import IncompleteError, LockedError, LockLostError, StoreError
from rarkit.runtime.progress import Reporter
from tests.cut_off import Way

ROWS = np.arange(12, dtype=np.uint16).reshape(4, 3)
NO_SUCH_PROCESS = 2**22 + 1


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "disk":
        return Store(str(tmp_path / "store"))
    if request.param == "memory":
        return Store(f"memory://locks-{os.getpid()}-{time.monotonic_ns()}")
    return Store(f"s3://{request.getfixturevalue('s3_bucket')}/locks-{time.monotonic_ns()}")


@pytest.fixture
def quick(monkeypatch):
    """A lock that nobody renews is taken over within moments; whoever holds one has time."""
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.02, renew=5, hold=60, free=0.3))


def lock_path(output):
    return f"{output.path}/lock.json"


def locked_by(output, holder):
    """Leaves the lock of another process."""
    output.filesystem.makedirs(output.path, exist_ok=True)
    contents = holder.contents()
    # ``contents`` is alive now.
    data = json.loads(contents) | {"heartbeat": holder.heartbeat}
    output.filesystem.pipe_file(lock_path(output), json.dumps(data).encode())


def me(**changes):
    return replace(Holder.this_process("another"), **changes)


def test_one_writer_at_a_time(store):
    output, other = store.output("train", "cafe"), store.output("train", "cafe")
    with (
        output.writing({}),
        pytest.raises(LockedError, match=rf"process {os.getpid()} on {socket.gethostname()} \(since 20.*--no-wait"),
        other.writing({}),
    ):
        pass
    with other.writing({}):
        assert output.writer().pid == os.getpid()
        assert other.writer() is None, "its own"
    assert output.writer() is None
    assert not output.filesystem.exists(lock_path(output))


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"pid": NO_SUCH_PROCESS}, True),
        ({"started": 1}, True),
        ({}, False),
        ({"pid": NO_SUCH_PROCESS, "namespace": 5}, False),
        ({"pid": NO_SUCH_PROCESS, "boot": "another"}, False),
        ({"pid": NO_SUCH_PROCESS, "host": "elsewhere"}, False),
        ({"pid": NO_SUCH_PROCESS, "boot": None, "namespace": None, "started": None}, False),
        ({"host": "elsewhere", "heartbeat": time.time() - 200}, False),
        ({"host": "elsewhere", "heartbeat": time.time() + 30}, False),
    ],
)
def test_a_lock_is_taken_over_at_once_only_from_the_dead(tmp_path, changes, free):
    output = Store(str(tmp_path)).output("train", "cafe")
    locked_by(output, me(**changes))
    if free:
        assert output.writer() is None
        with output.writing({}):
            pass
        assert os.listdir(output.path) == ["zarr.json"]
    else:
        with pytest.raises(LockedError), output.writing({}):
            pass


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc, as Linux has it")
def test_a_process_that_only_its_parent_has_not_noticed_is_dead(tmp_path):
    output = Store(str(tmp_path)).output("train", "cafe")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        fields = open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
        locked_by(output, me(pid=process.pid, started=int(fields[19])))
        assert output.writer().pid == process.pid
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert output.writer() is None


@pytest.mark.parametrize("heartbeat", [-30.0, 0.0, 10**6], ids=["late", "now", "future"])
def test_whoever_waits_takes_over_what_nobody_renews(store, quick, capfd, heartbeat):
    output = store.output("train", "cafe")
    locked_by(output, me(host="elsewhere", pid=7, heartbeat=time.time() + heartbeat))
    with output.writing({}, wait=True) as writing:
        assert writing.waited_for.host == "elsewhere"
        output.write_array("a", ROWS)
        output.finish()
    assert output.require_complete()
    said = capfd.readouterr().err
    assert said.count("stage 'train' (cafe): waiting for process 7 on elsewhere (since 20") == 1
    names = [name.rpartition("/")[2] for name in output.filesystem.find(output.path)]
    assert not [name for name in names if name.startswith("lock")], "neither the lock nor a claim to it"


def test_a_clock_that_is_late_loses_no_lock(store, monkeypatch):
    """Nor does it cost a refusal to whoever does not wait, where it is not the clock, but the process that is gone."""
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.01, renew=5, hold=60, free=0.5))
    output, looked = store.output("train", "cafe"), []
    locked_by(output, me(host="elsewhere", heartbeat=time.time() - 3600))

    def renewing():
        looked.append(locked_by(output, me(host="elsewhere", heartbeat=time.time() - 3600)))
        if len(looked) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), output.writing({}, wait=True, while_waiting=renewing):
        pass
    assert len(looked) == 30, "it was renewed at each look"
    with output.writing({}):
        output.write_array("a", ROWS)


def as_lock(**fields):
    return json.dumps({"token": "x", "host": "elsewhere", "pid": 7, "since": 0, "heartbeat": 0, "format": 3} | fields).encode()


NONSENSE = {
    "nothing": b"",
    "half": b'{"token": "x", "ho',
    "list": b"[]",
    "deep": b'{"a":' * 100_000,
    "text": as_lock(heartbeat="soon", pid={}),
    "huge": as_lock(heartbeat=1e300, since=1e300),
    "digits": as_lock(heartbeat=10**400),
    "nan": as_lock(heartbeat=float("nan"), since=float("inf")),
    "negative": as_lock(pid=-1),
    "years ahead": as_lock(heartbeat=time.time() + 1e9, since=time.time() + 1e9),
    "minutes ahead": as_lock(heartbeat=time.time() + 1000),
}


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("contents", NONSENSE.values(), ids=NONSENSE)
def test_a_lock_that_is_nonsense_is_free_after_a_minute(tmp_path, quick, contents, wait):
    """Also for whoever does not wait for others: nobody is known to hold it."""
    output = Store(str(tmp_path)).output("train", "cafe")
    output.filesystem.makedirs(output.path)
    output.filesystem.pipe_file(lock_path(output), contents)
    assert output.writer() is None
    began = time.monotonic()
    with output.writing({}, wait=wait):
        assert time.monotonic() - began >= OutputLock.times.free
    assert os.listdir(output.path) == ["zarr.json"]


def test_an_output_whose_lock_is_nonsense_can_be_removed(tmp_path, quick):
    output = Store(str(tmp_path)).output("train", "cafe")
    with output.writing({}):
        pass
    output.filesystem.pipe_file(lock_path(output), as_lock(heartbeat=time.time() + 1e9, reads=["train/cafe"]))
    Store(str(tmp_path)).remove(output)
    assert os.listdir(tmp_path / "train") == []


@pytest.mark.parametrize("renewed", [False, True])
def test_what_is_read_under_a_clock_that_is_ahead_stays(tmp_path, quick, renewed):
    """As long as the lock is renewed."""
    place = Store(str(tmp_path))
    output, above = place.output("fit", "cafe"), place.output("train", "f00d")
    with output.writing({}):
        output.finish()
    stop = threading.Event()

    def renew():
        while not stop.wait(0.05):
            locked_by(above, me(host="elsewhere", heartbeat=time.time() + 3600, reads=("fit/cafe",)))

    locked_by(above, me(host="elsewhere", heartbeat=time.time() + 3600, reads=("fit/cafe",)))
    renewing = threading.Thread(target=renew)
    if renewed:
        renewing.start()
    try:
        with pytest.raises(LockedError, match="read by process") if renewed else nullcontext():
            place.remove(output)
    finally:
        stop.set()
        if renewed:
            renewing.join()
    output.refresh()
    assert output.exists() is renewed


@pytest.mark.parametrize("offset", [-3600, 3600])
def test_whoever_does_not_wait_is_refused_by_a_renewal_whatever_the_clock(tmp_path, quick, offset):
    output = Store(str(tmp_path)).output("train", "cafe")
    locked_by(output, me(host="elsewhere", heartbeat=time.time() + offset))

    def renew():
        locked_by(output, me(host="elsewhere", heartbeat=time.time() + offset))

    with pytest.raises(LockedError, match="written by process"), output.writing({}, while_waiting=renew):
        pass


def test_who_waits_uses_what_the_other_has_finished(store, capfd):
    first, second = store.output("train", "cafe"), store.output("train", "cafe")
    waits, done = threading.Event(), []

    def wait_and_see():
        with second.writing({"identity": {"other": 1}}, wait=True, while_waiting=waits.set) as writing:
            done.append((writing.waited_for.pid, second.record()))

    waiting = threading.Thread(target=wait_and_see)
    with first.writing({"identity": {}}):
        waiting.start()
        waits.wait()
        first.write_array("a", ROWS)
        first.finish()
    waiting.join()
    [(pid, record)] = done
    assert pid == os.getpid()
    assert record.complete
    assert record.identity == {}
    assert "waiting for process" in capfd.readouterr().err


def test_an_interrupted_wait_changes_nothing(store):
    output = store.output("train", "cafe")
    locked_by(output, me(host="elsewhere", heartbeat=time.time()))
    before = output.filesystem.cat_file(lock_path(output))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), output.writing({}, wait=True, while_waiting=interrupt):
        pass
    assert output.filesystem.cat_file(lock_path(output)) == before
    assert len(output.filesystem.find(output.path)) == 1


def test_of_many_that_take_over_one_writes_at_a_time(store, monkeypatch):
    """All see the same lock, which expired long ago."""
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.02))
    locked_by(store.output("train", "cafe"), me(pid=NO_SUCH_PROCESS))
    writing, most, order = threading.Lock(), [], []

    def one(number):
        output = store.output("train", "cafe")
        with output.writing({}, wait=True, reporter=Reporter(quiet=True)):
            most.append(writing.acquire(blocking=False))
            order.append(number)
            time.sleep(0.005)
            writing.release()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order) == list(range(6))
    assert all(most), "two at a time"


def test_the_lock_of_another_ends_all_writing(store):
    output = store.output("train", "cafe")
    with output.writing({}):
        output.write_array("a", ROWS)
        locked_by(output, me(host="elsewhere", pid=7, heartbeat=time.time()))
        with pytest.raises(LockLostError, match="process 7 on elsewhere"):
            output.finish()
        for write in (
            lambda: output.write_array("b", ROWS),
            lambda: output.write_block(0, a=ROWS),
            lambda: output.write_file("b", b"b"),
            lambda: output.remove_file("b"),
        ):
            with pytest.raises(LockLostError, match="no longer written by this run"):
                write()
    assert output.writer().pid == 7, "the other's lock stays"
    output.refresh()
    assert not output.record().complete


def test_a_lock_that_is_gone_ends_all_writing(store):
    output = store.output("train", "cafe")
    with output.writing({}):
        output.filesystem.rm_file(lock_path(output))
        with pytest.raises(LockLostError, match="its lock was removed"):
            output.finish()
        with pytest.raises(LockLostError):
            output.write_array("a", ROWS)


def test_other_ranks_write_as_long_as_the_first_holds_the_lock(store):
    first, second = store.output("sample", "cafe"), store.output("sample", "cafe")
    with first.writing({}) as writing:
        first.create("a", ROWS.shape, ROWS.dtype, 2)
        second.share(writing.token)
        second.write_block(0, a=ROWS[:2])
        locked_by(first, me(host="elsewhere"))
        with pytest.raises(LockLostError):
            second.write_block(1, a=ROWS[2:])
    assert first.missing_blocks(["a"]) == [1]


def test_removing_leaves_what_another_begins_meanwhile(tmp_path):
    output, other = (Store(str(tmp_path)).output("train", "cafe") for _ in range(2))
    with output.writing({}):
        output.write_array("a", ROWS)
        output.finish()
    empty = output._folder.remove_empty_folders

    def begin_first():
        with other.writing({}):
            other.write_array("b", ROWS)
            other.finish()
        empty()

    output._folder.remove_empty_folders = begin_first
    output.remove()
    assert other.verify() is None
    output._folder.remove_empty_folders = empty
    output.remove()
    assert not os.path.exists(output.path)


def test_readers_say_that_it_is_being_written(store):
    output, reader = store.output("train", "cafe"), store.output("train", "cafe")
    with output.writing({}):
        output.write_array("a", ROWS, rows=2)
        with pytest.raises(IncompleteError, match=rf"is being written by process {os.getpid()} on .*Wait for that run\.$"):
            reader.require_complete()
        output.finish()
    reader.refresh()
    reader.require_complete()
    with output.writing({}, afresh=True), pytest.raises(IncompleteError, match="is being written by"):
        reader.read_array("a")
    with pytest.raises(IncompleteError, match="damaged"):
        reader.read_array("a")
    reader.refresh()
    with pytest.raises(IncompleteError, match="is not finished: the run that made it stopped"):
        reader.require_complete()


# A store that is cut off


@pytest.fixture
def way(s3_bucket):
    with Way(os.environ["AWS_ENDPOINT_URL"]) as open_way:
        yield open_way


@pytest.fixture
def near_and_far(s3_bucket, way, monkeypatch):
    """An output on S3: reached directly, and over the way."""
    url = f"s3://{s3_bucket}/cut-{time.monotonic_ns()}"
    near = Store(url).output("train", "cafe")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": way.url})
    far = Store(url).output("train", "cafe")
    assert far.filesystem is not near.filesystem
    with far.writing({}):
        far.write_array("a", ROWS[:2], rows=2)
    yield near, far
    monkeypatch.undo()


def renewed_after(output, moment):
    """Waits until a lock has been renewed after a moment."""
    while True:
        holder = Holder.of(output.filesystem.cat_file(lock_path(output)))
        if holder is not None and holder.heartbeat > moment:
            return
        time.sleep(0.02)


def test_a_short_cut_is_survived_and_said_once(near_and_far, way, monkeypatch, capfd):
    monkeypatch.setattr(OutputLock, "times", Times(renew=0.2, patience=1, hold=120, free=150))
    near, far = near_and_far
    with far.writing({}):
        for _ in range(2):
            way.cut()
            said = ""
            while "the lock cannot be renewed" not in said:
                said += capfd.readouterr().err
                time.sleep(0.05)
            way.mend()
            renewed_after(near, time.time())
            assert said.count("the lock cannot be renewed") == 1
        assert "cannot be renewed" not in capfd.readouterr().err
        far.write_array("b", ROWS)
        far.finish()
    assert near.verify() is None


def test_a_holder_that_is_cut_off_stops_before_another_takes_over(near_and_far, way, monkeypatch):
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.1, renew=0.2, patience=0.8, hold=3, free=3.5))
    near, far = near_and_far
    with far.writing({}):
        far.write_array("mine", ROWS)
        way.cut()
        # Under way when the lock expires: broken off, not sent later.
        with pytest.raises(LockLostError, match="could not renew its lock for 3 s"):
            far.write_file("late", b"late")
        with near.writing({}, wait=True, reporter=Reporter(quiet=True)) as writing:
            assert writing.waited_for.pid == os.getpid()
            near.write_file("note", b"whole")
            way.mend()
            for write in (far.finish, lambda: far.write_file("note", b"x"), lambda: far.write_block(0, mine=ROWS + 1)):
                with pytest.raises(LockLostError):
                    write()
            assert not near.record().complete
            near.finish(["note"])
    assert near.verify() is None
    assert near.read_file("note") == b"whole"
    assert near.file_names() == ["note"]
    np.testing.assert_array_equal(near.read_array("mine"), ROWS)


def test_an_expired_lock_that_nobody_took_is_taken_again(near_and_far, way, monkeypatch):
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.1, renew=0.2, patience=0.8, hold=3, free=3.5))
    near, far = near_and_far
    with far.writing({}):
        way.cut()
        hold = far._folder.hold
        while hold.seconds_left() > 0:
            time.sleep(0.05)
        way.mend()
        while hold.seconds_left() <= 0:
            time.sleep(0.05)
        far.write_array("b", ROWS)
        far.finish()
    assert near.verify() is None


# Two containers


def unshared(*arguments):
    return ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *arguments]


HOLDS = """
import signal, sys
from rarkit.cache.store import Store
with Store(sys.argv[1]).output("train", "cafe").writing({}):
    print("holds", flush=True)
    signal.pause()
"""


def test_processes_of_two_containers_do_not_judge_each_other(tmp_path):
    if shutil.which("unshare") is None or subprocess.run(unshared("-c", ""), capture_output=True, check=False).returncode:
        pytest.skip("no namespaces of processes here")
    output = Store(str(tmp_path)).output("train", "cafe")
    command = unshared("-c", HOLDS, str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with output.writing({}):
        # Its numbers of processes begin at 1: this process is not among them.
        refused = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert "LockedError" in refused.stderr
        assert f"process {os.getpid()} on" in refused.stderr
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "holds\n"
        holder = output.writer()
        assert holder.host == socket.gethostname()
        with pytest.raises(LockedError, match=f"process {holder.pid} on"), output.writing({}):
            pass
        process.kill()
    # Nobody here can tell that it is gone.
    with pytest.raises(LockedError), output.writing({}):
        pass
    assert isinstance(output.writer(), Holder)
    with pytest.raises(StoreError):
        output.remove()
