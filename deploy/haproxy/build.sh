#!/usr/bin/env bash
# Build an image of Debian's or Ubuntu's own haproxy package, from nothing and without a pull: the program, the
# libraries it is linked with, and a user. Usage: build.sh TAG [DOCKER_HOST]
#
# It must not: install or start anything, or put anything into the image that haproxy does not need.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

fail() {
  printf 'build  failed: %s\n' "$1" >&2
  exit 1
}

[ $# = 1 ] || [ $# = 2 ] || fail "usage: build.sh TAG [DOCKER_HOST]"
tag=$1
engine=${2:-${DOCKER_HOST:-unix:///var/run/docker.sock}}
program=$(command -v haproxy) || fail "haproxy was not found; install the distribution's package haproxy"
program=$(readlink -f "$program")
haproxy -vv | grep '+LUA' >/dev/null || fail "this haproxy has no Lua, which services that sleep need"
command -v docker >/dev/null || fail "docker was not found; install the distribution's package docker-cli or docker.io"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc" "$root/usr/sbin"
cp "$program" "$root/usr/sbin/haproxy"
echo 'haproxy:x:99:99:haproxy:/:/nonexistent' >"$root/etc/passwd"
echo 'haproxy:x:99:' >"$root/etc/group"
# Each library goes where the loader looks for it; a link becomes the file it points to.
ldd "$program" | grep -o '/[^ ]*' | sort -u | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

# The same files give the same bytes, so that building again changes nothing.
tar --create --directory "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner . |
  docker --host "$engine" import --change 'ENV PATH=/usr/sbin' --change 'USER 99:99' \
    --change 'ENTRYPOINT ["haproxy"]' --change 'CMD ["-v"]' - "$tag"
