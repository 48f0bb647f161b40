"""Processes side by side: what failures, kills and stops do to them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nodecore.evidence import processes
from nodecore.evidence.processes import Workers

TESTS = Path(__file__).parent


# --- their work -----------------------------------------------------------------------------------


def work(item, tell):
    """In a process: what the first letter of the item says."""
    folder, what = Path(item[0]), item[1]
    tell(os.getpid())
    (folder / f"{what}.pid").write_text(str(os.getpid()))
    if what.startswith("refuse"):
        raise ValueError("a remedy")
    if what.startswith("break"):
        return {}["nothing"]
    if what.startswith("exit"):
        os._exit(3)
    if what.startswith("long"):
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            (folder / f"{what}.stopped").write_text("")
            raise
    return what.upper()


def started(folder, *names):
    """The ids of the processes that work on these items, once they do."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        texts = [p.read_text() if p.exists() else "" for p in (folder / f"{n}.pid" for n in names)]
        if all(texts):
            return [int(text) for text in texts]
        time.sleep(0.01)
    raise AssertionError(f"not all of {names} began")


def is_gone(pid):
    """Whether a process ends, soon; a zombie has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def finish(workers, folder, names):
    """Work on all items, as many at a time as there is room; what came of each, by its name."""
    names, ends = list(names), {}
    while names or workers.n_busy:
        while names and workers.have_room:
            workers.start((folder, names.pop(0)))
        for event in workers.wait(1.0):
            if event.kind != "told":
                ends[event.item[1]] = event.kind, event.value
    return ends


def test_each_item_is_worked_on_once_by_as_many_processes_as_are_asked_for(tmp_path):
    names = [f"item{i}" for i in range(8)]
    with Workers(work, 2) as workers:
        assert finish(workers, tmp_path, names) == {n: ("returned", n.upper()) for n in names}
    pids = set(started(tmp_path, *names))
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids
    assert all(map(is_gone, pids))


def test_an_item_that_fails_fails_alone_and_says_why(tmp_path):
    with Workers(work, 2) as workers:
        ends = finish(workers, tmp_path, ["refuse", "exit", "first", "break", "second"])
    assert ends["refuse"] == ("failed", "a remedy")
    assert ends["exit"] == ("failed", "its process ended with status 3")
    assert ends["break"][0] == "failed" and "KeyError: 'nothing'" in ends["break"][1]
    assert ends["first"] == ("returned", "FIRST") and ends["second"] == ("returned", "SECOND")


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (signal.SIGKILL, "its process was killed (SIGKILL), perhaps for lack of memory"),
        (signal.SIGTERM, "its process was told to end (SIGTERM)"),
        (signal.SIGSEGV, "its process crashed (SIGSEGV)"),
    ],
)
def test_a_process_that_is_killed_fails_its_item_only(tmp_path, number, why):
    with Workers(work, 2) as workers:
        workers.start((tmp_path, "long-1"))
        workers.start((tmp_path, "long-2"))
        killed, other = started(tmp_path, "long-1", "long-2")
        os.kill(killed, number)
        events = []
        while not events:
            events = [event for event in workers.wait(1.0) if event.kind != "told"]
        assert [(e.item[1], e.kind, e.value) for e in events] == [("long-1", "failed", why)]
        assert workers.n_busy == 1 and workers.have_room
        workers.start((tmp_path, "item"))  # by a new process
        assert [e.value for e in events_of(workers, "returned")] == ["ITEM"]
        assert os.path.exists(f"/proc/{other}")
    assert (tmp_path / "long-2.stopped").exists()


def events_of(workers, kind):
    while True:
        if events := [event for event in workers.wait(1.0) if event.kind == kind]:
            return events


def test_a_process_that_is_killed_without_an_item_is_replaced(tmp_path):
    with Workers(work, 1) as workers:
        finish(workers, tmp_path, ["first"])
        [pid] = started(tmp_path, "first")
        os.kill(pid, signal.SIGKILL)
        assert is_gone(pid)
        assert list(workers.wait(60)) == []
        assert finish(workers, tmp_path, ["second"]) == {"second": ("returned", "SECOND")}


def test_what_is_told_arrives_with_the_item_and_not_more_often_than_needed(tmp_path):
    with Workers(work, 1) as workers:
        workers.start((tmp_path, "long"))
        [event] = events_of(workers, "told")
        assert [event.item[1], event.value] == ["long", *started(tmp_path, "long")]
    ours, theirs = multiprocessing.Pipe()
    tell = processes._Teller(theirs)
    for value in range(1000):
        tell(value)
    assert ours.recv() == ("told", 0) and not ours.poll()
    tell.told -= processes.TELLING
    tell("later")
    assert ours.recv() == ("told", "later")


# --- their end ------------------------------------------------------------------------------------


def test_who_leaves_stops_them_and_the_terminals_ctrl_c_does_not(tmp_path):
    with pytest.raises(KeyboardInterrupt), Workers(work, 2) as workers:
        workers.start((tmp_path, "long-1"))
        workers.start((tmp_path, "long-2"))
        pids = started(tmp_path, "long-1", "long-2")
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        assert not list(tmp_path.glob("*.stopped"))
        raise KeyboardInterrupt
    assert len(list(tmp_path.glob("*.stopped"))) == 2
    assert all(map(is_gone, pids))


def test_a_process_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    with Workers(deaf, 1) as workers:
        workers.start((tmp_path, "deaf"))
        [pid] = started(tmp_path, "deaf")
    assert is_gone(pid)


def deaf(item, tell):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (item[0] / f"{item[1]}.pid").write_text(str(os.getpid()))
    time.sleep(1000)


PARENT = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from nodecore.processes import Workers
from test_processes import work
if __name__ == "__main__":
    with Workers(work, 3) as workers:
        workers.start((sys.argv[1], "long"))
        workers.start((sys.argv[1], "item"))
        while True:
            list(workers.wait(1.0))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_none_survives_its_parent(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script, tmp_path]) as parent:
        pids = started(tmp_path, "long", "item")
        parent.send_signal(number)
    assert all(map(is_gone, pids))
    assert (tmp_path / "long.stopped").exists()  # it could leave what it wanted to


def test_they_can_be_started_from_another_thread(tmp_path):
    ends = []

    def begin():
        with Workers(work, 1) as workers:
            ends.append(finish(workers, tmp_path, ["item"]))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert ends == [{"item": ("returned", "ITEM")}]
