#!/bin/sh
# Builds into dist/ everything of a release that a maintainer uploads, and checks it: the source, a pure wheel made from it, a
# compiled wheel for each of Python 3.11 to 3.14 that is there, the site, a bill of materials (CycloneDX), notes and checksums.
# Each wheel is installed into an empty machine, where README's first model and the tutorial run, and the image serves a model. Where pip-audit's service cannot be
# reached the release fails; with AUDIT=later it goes on, and names the audit among the steps that are left. With ARM=1, zig
# compiles the wheels for aarch64, too, which are not run. The image begins with docker's python; with BASE=debian, for machines
# that reach no registry, it begins with Debian's packages and is built by a dockerd of its own.
set -eu
cd "$(dirname "$0")/.."
if [ -n "$(git status --porcelain)" ]; then
    echo "There are changes that are not committed: commit them, since a release is one commit." >&2
    exit 1
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
mkdir dist

tool=$(sh scripts/environment.sh release requirements/release.txt)/bin

"$tool/python" -m hatchling build -t sdist -d dist
mkdir "$work/source"
tar -xzf dist/*.tar.gz -C "$work/source" --strip-components 1
(cd "$work/source" && "$tool/python" -m hatchling build -t wheel -d "$OLDPWD/dist")

commit=$(git rev-parse --short=8 HEAD)
sh scripts/empty_machine.sh dist/*-none-any.whl .venv/bin/python "clipper $version (pure Python, commit $commit)"
.venv/bin/python -m venv "$work/check"
"$work/check/bin/python" -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt dist/*-none-any.whl
"$tool/cyclonedx-py" environment "$work/check/bin/python" --output-file "dist/clipper-serving-$version.cdx.json"
packages=$("$work/check/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
left=
"$tool/python" scripts/audit.py "$packages" || {
    status=$?
    if [ "$status" != 3 ] || [ "${AUDIT:-}" != later ]; then
        [ "$status" != 3 ] || echo "make release AUDIT=later goes on without it." >&2
        exit "$status"
    fi
    left="make audit, where the service can be reached: the audit was not done here
"
}

sh scripts/wheel.sh "$work/compiled"
if [ "${ARM:-}" = 1 ]; then
    TARGET=aarch64 sh scripts/wheel.sh "$work/compiled"
    left="${left}try the wheels for aarch64 on such a machine: scripts/serve_once.sh
"
fi
for wheel in "$work"/compiled/*.whl; do
    # It takes the oldest system on which the compiled code runs from the symbols that the code uses.
    PATH="$tool:$PATH" auditwheel repair --wheel-dir dist "$wheel"
done
for wheel in dist/*-cp3*"$(uname -m)".whl; do
    python=${wheel#*-cp3}
    sh scripts/empty_machine.sh "$wheel" "python3.${python%%-*}" "clipper $version (compiled, commit $commit)"
done
image=dist/clipper-serving-$version-image.tar.gz
if [ "${BASE:-}" = debian ]; then
    .venv/bin/python -m tests.deploy.release_image "$image"
else
    IMAGE=clipper sh scripts/image.sh || { echo "make release BASE=debian builds the image where no registry is reached." >&2; exit 1; }
    sh scripts/check_image.sh clipper "$image"
fi
grep -q '^\[project.urls\]' pyproject.toml || left="${left}give pyproject.toml a table [project.urls], and README its ADDRESS
"

make --no-print-directory docs
tar -czf "dist/clipper-serving-$version-docs.tar.gz" -C build site
awk -v version="$version" '/^## \[/ {if (printing) exit; printing = ($0 ~ "\\[" version "\\]"); next} printing' CHANGELOG.md >dist/notes.md
(cd dist && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
awk '/^## \[/ {printing = /Unreleased/; next} printing && NF {found = 1} END {exit found}' CHANGELOG.md ||
    echo "CHANGELOG.md has entries under Unreleased, which the notes leave out: give them a version first." >&2
[ -s dist/notes.md ] || echo "CHANGELOG.md has no section ## [$version], so the release has no notes." >&2
echo "dist/ is complete. These steps are left:"
printf %s "${left}git tag -s v$version
docker load < $image, and docker push
twine upload dist/*.whl dist/clipper_serving-$version.tar.gz
" | sed 's/^/- /'
