#!/bin/sh
# Unpacks Debian packages into a folder, without installing them or what they depend on: for data that packages hold.
# Needs no root, unless the package lists have to be fetched first.
set -eu
folder=${1:?"usage: apt-unpack.sh FOLDER PACKAGE..."}
shift
mkdir -p "$folder"
cd "$folder"
for package in "$@"; do
    [ -f "$package.unpacked" ] && continue
    if ! command -v apt-get >/dev/null; then
        echo "Needed and not there: the files of Debian's $package. There is no apt-get here: unpack it into $folder." >&2
        exit 1
    fi
    echo "Fetching Debian's $package."
    if ! apt-get download -qq "$package" 2>/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update -qq
        apt-get download -qq "$package"
    fi
    dpkg-deb -x "$package"_*.deb .
    rm "$package"_*.deb
    touch "$package.unpacked"
done
