"""In a process of its own: what another's heap looks like is nobody's to say."""

import subprocess
import sys

# 64 MB in pieces that glibc takes from the heap, below an object that stays.
PROGRAM = """
from pathlib import Path
from clipper.base.malloc import give_back_freed

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

pieces = [b"x" * 65536 for _ in range(1024)]
keeps_them = [b"x" * 65536 for _ in range(4)]
before = resident_mb()
del pieces
held = resident_mb()
give_back_freed()
print(before - held, before - resident_mb())
"""


LARGE_PIECES = """
from pathlib import Path
from clipper.base.malloc import keep_large_pieces_apart

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

keep_large_pieces_apart()
for _ in range(3):
    before = resident_mb()
    table = bytearray(b"x") * (21 * 2**20)
    small = [b"x" * 1000 for _ in range(1000)]
    del table
    print(resident_mb() - before)
"""


# One thread after the other takes 8 MB in pieces, and keeps one that lies above them; none ends before all have.
THREADS = """
import sys
import threading
from pathlib import Path
from clipper.base.malloc import share_one_arena

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "shared":
    share_one_arena()
kept = []
end = threading.Event()

def work(done):
    pieces = [bytearray(4096) for _ in range(2048)]
    kept.append(bytearray(4096))
    del pieces
    done.set()
    end.wait()

before = resident_mb()
for _ in range(6):
    done = threading.Event()
    threading.Thread(target=work, args=[done]).start()
    done.wait()
print(resident_mb() - before)
end.set()
"""


def test_threads_use_what_others_have_freed() -> None:
    def grown_mb(how: str) -> float:
        done = subprocess.run([sys.executable, "-c", THREADS, how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert grown_mb("shared") < 16
    assert grown_mb("apart") > 32, "glibc does it by itself now"


def test_large_piece_leaves_no_hole() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE_PIECES], capture_output=True, text=True, check=True)
    assert all(float(left_mb) < 5 for left_mb in done.stdout.split())


def test_memory_below_what_is_in_use_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    by_itself_mb, given_back_mb = map(float, done.stdout.split())
    assert by_itself_mb < 32
    assert given_back_mb > 56
