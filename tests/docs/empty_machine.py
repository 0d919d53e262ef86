"""Does what README's first model and the tutorial say on an empty machine, in which a wheel is installed first.

scripts/empty_machine.sh makes the machine, a root file system without a network, and runs this in its namespaces.
"""

import argparse
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import ROOT, Reader, follow

# No number that the machine's own files give another user.
USER = 1000
HOME = "/home/reader"
PATH = f"{HOME}/clipper-env/bin:/usr/bin:/bin"
# As the tutorial ends. Only on such a machine is the user not root, whom no mode of a file stops.
FORGET = "chmod -R u+w ~/.clipper && rm -r ~/.clipper"
INSTALLS = ("python3 -m venv", "pip ")


@dataclass
class Machine(Reader):
    """Follows pages as a user of the machine whose files are below ``root``; ``folder`` is that user's home."""

    root: Path = field(kw_only=True)

    def shell(self, command: str) -> list[str]:
        words = ["chroot", f"--userspec={USER}:{USER}", str(self.root)]
        return [
            *words,
            "env",
            "-i",
            f"--chdir={HOME}",
            f"HOME={HOME}",
            f"PATH={PATH}",
            "COLUMNS=250",
            "sh",
            "-c",
            command,
        ]


def boot(root: Path) -> Path:
    """Give the machine what a running one has, and its only user a home, which is returned."""
    for words in (
        ["mount", "-t", "proc", "proc", f"{root}/proc"],
        ["mount", "--rbind", "/dev", f"{root}/dev"],
        ["mount", "-t", "tmpfs", "tmpfs", f"{root}/dev/shm"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(words, check=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    home = root / HOME.removeprefix("/")
    home.mkdir(parents=True)
    os.chown(home, USER, USER)
    return home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("wheel")
    parser.add_argument("python")
    parser.add_argument("version", help="what clipper --version prints")
    arguments = parser.parse_args()
    home = boot(arguments.root)
    # A machine that is busy keeps a longer objective.
    machine = Machine(
        home, {"--slo-ms 20 ": "--slo-ms 20000 ", "--slo-ms 100": "--slo-ms 20000"}, "", root=arguments.root
    )
    begun = time.monotonic()
    machine.run(f"{arguments.python} -m venv ~/clipper-env")
    machine.run(f'pip install --quiet --no-index --find-links /wheels "/wheels/{arguments.wheel}[sklearn]"')
    assert machine.run("clipper --version").strip() == arguments.version
    follow(ROOT / "README.md", machine, section="Your first model")
    took_s = time.monotonic() - begun
    print(f"{arguments.wheel}: README's first model answers, {took_s:.0f} s after the installation began")
    machine.run(f"clipper stop && {FORGET}")
    tutorial = ROOT / "docs" / "tutorial.md"
    assert follow(tutorial, machine, INSTALLS)[-1] == "clipper stop"
    assert f"`{FORGET}`" in tutorial.read_text()
    machine.run(FORGET)
    print(f"{arguments.wheel}: the tutorial does what it shows")


if __name__ == "__main__":
    main()
