#!/bin/sh
# Makes a root file system of Debian's packages $1, such as python3-venv,curl, and of what no Debian is without, and prints the name of
# its tar. It is made once a week, since Debian mends its packages. Needs root, or sudo.
set -eu
cd "$(dirname "$0")/.."
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
command -v mmdebstrap >/dev/null || sh scripts/apt-install.sh mmdebstrap >&2
. /etc/os-release
folder=${XDG_CACHE_HOME:-$HOME/.cache}/clipper/debian-roots
tar=$folder/$({ echo "$1 $VERSION_CODENAME $(date +%G-%V)" && cat scripts/debian_root.sh; } | sha256sum | cut -c1-12).tar
if [ ! -f "$tar" ]; then
    echo "Making a root file system of Debian's packages; this is done once a week." >&2
    mkdir -p "$folder"
    # Debian keeps pip out of its own Python, which an image has for nothing else.
    $as_root mmdebstrap --quiet --format=tar --variant=minbase --include="$1" --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        "$VERSION_CODENAME" "$tar.new" /etc/apt/sources.list.d/debian.sources >&2
    mv "$tar.new" "$tar"
fi
echo "$tar"
