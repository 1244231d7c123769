"""Time, CPU time and memory of a process and its descendants."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from segplug.runtime.process_tree import ProcessTree, UsageMeter

# a parent with two children; each holds 60 MB, says so, and waits for its input to end
PROGRAM = """
import subprocess, sys
depth = int(sys.argv[1])
held = bytearray(60_000_000)
held[::4096] = b"x" * len(held[::4096])
children = []
if depth:
    child = [sys.executable, "-c", sys.argv[2], "0", ""]
    children = [subprocess.Popen(child, stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        child.stdout.readline()
print("ready", flush=True)
sys.stdin.read()
for child in children:
    child.wait()
"""


def test_memory_of_descendants_counts() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "1", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with UsageMeter(process.pid) as meter:
        process.stdout.readline()
        tree = ProcessTree(process.pid)
        assert len(tree.processes()) == 3
        assert 180e6 < tree.memory() < 280e6
        time.sleep(0.3)
        process.stdin.close()
        process.wait()
    process.stdout.close()
    assert 180e6 < meter.usage.peak_memory < 280e6
    assert meter.usage.seconds > 0.3


def test_shared_pages_count_once() -> None:
    held = bytearray(50_000_000)
    held[::4096] = b"x" * len(held[::4096])
    alone = ProcessTree().memory()
    code = "import os, sys, time; held = bytearray(80_000_000); held[::4096] = b'x' * len(held[::4096])\n"
    code += "[os.fork() or (time.sleep(30), os._exit(0)) for _ in range(3)]; print('ready', flush=True); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        tree = ProcessTree(process.pid)
        assert len(tree.processes()) == 4
        assert 80e6 < tree.memory() < 150e6  # not four times 80
        assert ProcessTree().memory() >= alone + 80e6
    finally:
        for each in reversed(ProcessTree(process.pid).processes()):
            subprocess.run(["kill", "-9", str(each)], check=True)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_cpu_time_of_this_process_and_ended_children() -> None:
    code = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    with UsageMeter() as meter:
        subprocess.run([sys.executable, "-c", code], check=True)
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    assert 0.55 < meter.usage.cpu_seconds < 1.5


def test_processes_that_are_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    gone = ProcessTree(process.pid)
    assert (gone.memory(), gone.cpu_seconds(), gone.largest()) == (0, 0.0, 0)


def test_usage_belongs_to_the_end() -> None:
    meter = UsageMeter()
    with pytest.raises(RuntimeError, match="before it has ended"):
        meter.usage  # noqa: B018


def test_a_process_about_to_become_another_program_counts_once() -> None:
    # a child that shares its parent's memory (CLONE_VM, as vfork makes it) and waits
    code = """
import ctypes, sys, time
held = bytearray(60_000_000)
held[::4096] = b"x" * len(held[::4096])
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(1 << 16)
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
child = libc.clone(ctypes.cast(libc.sleep, ctypes.c_void_p), ctypes.addressof(stack) + (1 << 16), 0x100 | 17, 20)
print(child, flush=True)
time.sleep(20)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        child = int(process.stdout.readline())
        assert child > 0
        assert ProcessTree(process.pid).processes() == [process.pid]
        assert 60e6 < ProcessTree(process.pid).memory() < 110e6
    finally:
        subprocess.run(["kill", "-9", str(child), str(process.pid)], check=True)
        process.wait()
        process.stdout.close()
