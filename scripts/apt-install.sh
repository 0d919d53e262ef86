#!/bin/sh
# Installs Debian packages as root or through sudo; elsewhere says what is missing and fails.
set -eu
if ! command -v apt-get >/dev/null; then
    echo "Needed and not installed: $*. There is no apt-get here: install it by hand, then try again." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "Needed and not installed: $*. Run as root: apt-get install $*" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "Installing $* with apt-get."
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
