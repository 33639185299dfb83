#!/usr/bin/env bash
# Set up everything that `make demo` and `make test` need on Debian or Ubuntu. Every step is done only when it is
# needed, and says so in one line; a second run does nothing.
#
# It must not: start a service, leave one switched on, touch an engine that is already there, or install anything
# whose hash is not in the lock files (distribution packages are checked by apt).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

LOG=.cache/setup.log
POLICY=/usr/sbin/policy-rc.d
MARK="written by Reconciler's tools/setup.sh"
SYSTEM_CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
UNITS="docker.service docker.socket containerd.service docker-registry.service haproxy.service \
  postgresql.service ssh.service ssh.socket"

mkdir -p .cache
exec 9>.cache/setup.lock
flock 9 # two at once would undo each other's work
: >"$LOG"

say() { printf 'setup  %s\n' "$*"; }

fail() {
  printf 'setup  failed: %s\n' "$1" >&2
  shift
  printf '       %s\n' "$@" >&2
  exit 1
}

# Run a command quietly; when it fails, show the end of what it said.
quietly() {
  local what=$1
  shift
  "$@" >>"$LOG" 2>&1 && return
  tail -n 15 "$LOG" | sed 's/^/       | /' >&2
  fail "$what" "everything it said is in $LOG"
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if has "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

# The engine that the user already has, if it answers.
engine_answers() {
  local address=${DOCKER_HOST:-unix:///var/run/docker.sock}
  if has docker; then
    timeout 10 docker --host "$address" version >/dev/null 2>&1
  elif [ "${address#unix://}" != "$address" ] && [ -n "$PYTHON_FOUND" ]; then
    timeout 10 "$PYTHON_FOUND" -c 'import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
sys.exit(b" 200 " not in link.recv(64))' "${address#unix://}" >/dev/null 2>&1
  else
    return 1
  fi
}

links_statically() {
  echo 'int main(void) { return 0; }' | gcc -static -x c -o /dev/null - >/dev/null 2>&1
}

# What gives the pods of the tests' own cluster their network.
has_network_plugins() {
  [ -x /usr/lib/cni/ptp ] || [ -x /opt/cni/bin/ptp ] || [ -x /usr/libexec/cni/ptp ]
}

# Debian keeps the server's programs out of the PATH: there can be several versions of them.
has_postgres() {
  has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

# The unit's own system call filter is tried with it.
has_seccomp() {
  ls /usr/lib/*/libseccomp.so.2 /usr/lib/libseccomp.so.2 >/dev/null 2>&1
}

# Names of the distribution's packages for what is missing here, one a line.
missing_packages() {
  [ -n "$PYTHON_FOUND" ] || echo python3
  if [ -z "$PYTHON_FOUND" ]; then
    echo python3-venv
  elif ! "$PYTHON_FOUND" -c 'import ensurepip, venv' 2>/dev/null; then
    "$PYTHON_FOUND" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
  fi
  has git || echo git
  has gcc || echo gcc
  links_statically || echo libc6-dev
  has ssh && has ssh-keygen || echo openssh-client
  has sshd || echo openssh-server
  has openssl || echo openssl
  has setpriv && has unshare || echo util-linux
  has iptables || echo iptables
  has docker-registry || echo docker-registry
  has haproxy || echo haproxy
  has_postgres || echo postgresql
  has dockerd || engine_answers || echo docker.io
  has docker || echo docker-cli
  has containerd && has ctr || echo containerd
  has runc || echo runc
  has_network_plugins || echo containernetworking-plugins
  has docker-compose || echo docker-compose
  has systemd-analyze || echo systemd
  has_seccomp || echo libseccomp2
  has node || echo nodejs
  has npm || echo npm
}

# While apt works, services are not started. The policy holds only as long as this very shell lives, and is removed
# at the end: nothing stays behind even when the shell is killed and never comes back to clean up.
hold_services() {
  if [ -e "$POLICY" ] && ! grep -q "$MARK" "$POLICY"; then
    return # somebody else's policy stays as it is
  fi
  as_root tee "$POLICY" >/dev/null <<POLICY_END
#!/bin/sh
# $MARK
[ -d /proc/$$ ] && exit 101
exit 0
POLICY_END
  as_root chmod 755 "$POLICY"
  trap release_services EXIT
}

release_services() {
  if [ -e "$POLICY" ] && grep -q "$MARK" "$POLICY"; then
    as_root rm -f "$POLICY"
  fi
}

present_units() {
  local unit
  for unit in $UNITS; do
    if [ -e "/lib/systemd/system/$unit" ] || [ -e "/etc/systemd/system/$unit" ]; then echo "$unit"; fi
  done
}

# Units that came with the packages just installed are switched off, so that the next start of the machine is as before.
switch_off_new_units() { # the units that were there before
  local unit
  has systemctl || return 0
  for unit in $(present_units); do
    case " $* " in
      *" $unit "*) ;;
      *) as_root systemctl disable "$unit" >>"$LOG" 2>&1 || true ;;
    esac
  done
}

# Debian 12 and Ubuntu keep the docker command in docker.io; Debian 13 has a package of its own for it.
known_packages() {
  local package
  for package in "$@"; do
    if [ "$package" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1; then
      package=docker.io
    fi
    echo "$package"
  done | sort -u
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() {
  local wanted before
  # shellcheck disable=SC2046 # package names have no blanks
  set -- $(missing_packages)
  [ $# -gt 0 ] || return 0
  has apt-get || fail "these are missing: $*" "install them by your distribution's means, then run this again"
  if [ "$(id -u)" != 0 ] && ! has sudo; then
    fail "these packages are missing: $*" "run this as root, or install sudo, or ask for: apt-get install $*"
  fi
  say "distribution packages: $*"
  quietly "apt-get update" apt update
  wanted=$(known_packages "$@")
  before=$(present_units | tr '\n' ' ')
  hold_services
  # shellcheck disable=SC2086 # one word for each package
  quietly "apt-get install $*" apt install --no-install-recommends $wanted
  release_services
  # shellcheck disable=SC2086 # one word for each unit
  switch_off_new_units $before
  say "their services stay off; for an engine of your own: systemctl enable --now docker"
}

fingerprint() { # of files and of the Python in use
  { "$PYTHON_FOUND" -VV; cat "$@"; } | sha256sum | cut -d' ' -f1
}

pip_install() {
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-build-isolation "$@"
}

make_environment() {
  local wanted
  wanted=$(fingerprint requirements-build.txt requirements-dev.txt)
  if [ "$(cat .venv/requirements.stamp 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "virtual environment .venv from the locked requirements ($("$PYTHON_FOUND" -V))"
    rm -rf .venv
    quietly "python3 -m venv .venv" "$PYTHON_FOUND" -m venv .venv
    quietly "pip install -r requirements-build.txt" pip_install --require-hashes -r requirements-build.txt
    quietly "pip install -r requirements-dev.txt" pip_install --require-hashes -r requirements-dev.txt
    echo "$wanted" >.venv/requirements.stamp
  fi
  wanted=$(fingerprint pyproject.toml)
  if [ "$(cat .venv/package.stamp 2>/dev/null)" != "$wanted" ]; then
    say "reconciler itself, from this folder"
    quietly "pip install -e ." pip_install --no-deps --editable .
    echo "$wanted" >.venv/package.stamp
  fi
}

install_payloads() {
  local wanted
  [ -e tests/package-lock.json ] || fail "tests/package-lock.json is missing" "it belongs to the repository: git checkout it"
  wanted=$(sha256sum <tests/package-lock.json | cut -d' ' -f1)
  if [ "$(cat tests/node_modules/.stamp 2>/dev/null)" != "$wanted" ]; then
    say "webhook payloads from npm"
    # npm brings certificates of its own; those this machine trusts count too, as they do for apt and pip.
    if [ -r "$SYSTEM_CERTIFICATES" ]; then
      export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$SYSTEM_CERTIFICATES}
    fi
    quietly "npm ci" npm ci --prefix tests --ignore-scripts --no-audit --no-fund
    mkdir -p tests/node_modules
    echo '*' >tests/node_modules/.gitignore
    echo "$wanted" >tests/node_modules/.stamp
  fi
}

PYTHON_FOUND=$(find_python)
install_packages
PYTHON_FOUND=$(find_python)
[ -n "$PYTHON_FOUND" ] || fail "no Python 3.11 or newer was found" \
  "this distribution's python3 is too old; install python3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
make_environment
install_payloads
say "ready"
