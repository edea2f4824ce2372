# Sourced by the scripts beside it, in the project's root: a virtual environment with what they need.

# What goes into the package.
package_files=(sydentish res setup.cfg pyproject.toml README.md LICENSE)

# Sees to it that .venv has the package as it is now, and the extras named: prepare_environment test,lint
# Takes nothing away from .venv, and needs neither time nor network if everything is there.
prepare_environment() (
    # pip ends in good order when it is interrupted; without these, this would go on after it.
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    lock_environment
    usable_environment || make_environment
    install_package "$1"
)

# What tests/e2e runs besides this server, and the modules that tell whether it is there: a homeserver, and an
# identity server of another kind.
synapse_requirements=(matrix-synapse==1.163.2)
synapse_module=synapse
# It does not start without the extra, and does not say that canonicaljson 2 is too new for it.
sydent_requirements=('matrix-sydent[prometheus]==2.6.1' 'canonicaljson<2')
sydent_module=sydent.sydent

# Sees to it that .venv-synapse or .venv-sydent has the program: prepare_program synapse
# An environment of its own: what it needs may not fit what we need. Where it cannot be installed, this says so and fails.
prepare_program() (
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    program="$1"
    declare -n requirements="${program}_requirements" module="${program}_module"
    lock_environment
    if [ "$(cat ".venv-$program/installed" 2>/dev/null)" = "${requirements[*]}" ] &&
        ".venv-$program/bin/python" -c "import $module" 2>/dev/null; then
        exit
    fi
    echo "Installing ${requirements[*]} into .venv-$program (needs the network, this once) ..." >&2
    if ! install_program; then
        rm -rf ".venv-$program"
        echo "${program^} could not be installed; why, stands above. Without it, the tests marked $program cannot run." >&2
        exit 1
    fi
)

# Where there is no built package for this machine, building one takes a compiler and long: rather not.
install_program() {
    rm -rf ".venv-$program" &&
        python3 -m venv ".venv-$program" &&
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore ".venv-$program/bin/python" -m pip install \
            --quiet --retries 1 --only-binary "matrix-$program" "${requirements[@]}" &&
        ".venv-$program/bin/python" -c "import $module" &&
        echo "${requirements[*]}" >".venv-$program/installed"
}

# Programs of other projects that tests run, from Debian's packages.
tool_packages=(caddy curl git mmdebstrap nginx-light openssl prometheus python3-venv systemd)

# Sees to it that the tools are there: prepare_tools
# Takes root and the network, unless they are there already. None of them is started as a service.
prepare_tools() (
    dpkg --status "${tool_packages[@]}" >/dev/null 2>&1 && exit
    echo "Installing ${tool_packages[*]} ..." >&2
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${tool_packages[@]}" >/dev/null
)

# Whether these arguments of pytest run the tests that need a program: wants synapse tests/e2e -x
# Paths that lie elsewhere do not, and who leaves them out.
wants() {
    local program="$1" argument elsewhere=""
    shift
    for argument in "$@"; do
        case "$argument" in
        *"not $program"*) return 1 ;;
        tests | tests/ | tests/e2e | tests/e2e/ | "tests/e2e/test_$program"*) return 0 ;;
        tests/*) elsewhere=yes ;;
        esac
    done
    [ -z "$elsewhere" ]
}

# Two that prepare at once would break each other's work. The lock ends with the subshell that takes it.
lock_environment() {
    exec 9<.
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        echo "Waiting for another run that prepares .venv ..." >&2
        flock 9
    fi
}

# Whether .venv was finished, has its Python and what builds the package still, and was made for this place.
usable_environment() {
    [ ! -e .venv/unfinished ] && .venv/bin/python -c 'import setuptools.command.bdist_wheel, pip' 2>/dev/null &&
        head -n 2 .venv/bin/pip 2>/dev/null | grep -qF "$(pwd -P)/.venv/bin/"
}

# Makes .venv, with what builds the package without the network later.
make_environment() {
    must_be_writable .
    if [ -e .venv ] || [ -L .venv ]; then
        echo "The environment .venv is broken, unfinished or from another place; it is made anew." >&2
        must_be_writable .venv
        rm -rf .venv
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_venv_module
    echo "Making the environment .venv (needs the network, this once) ..." >&2
    mkdir .venv
    temporary_files_in_environment
    touch .venv/unfinished
    python3 -m venv .venv || fail "Python could not make the environment .venv; what it says stands above."
    pip_install --upgrade 'setuptools>=70.1'
    rm .venv/unfinished
}

# Debian and Ubuntu keep the modules that make environments in a package of their own.
install_venv_module() {
    local wanted="Python 3.11 or newer with its modules venv and ensurepip is needed."
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$wanted On Debian and Ubuntu: sudo apt-get install python3-venv"
    fi
    echo "Installing the package python3-venv ..." >&2
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null; }; then
        fail "$wanted Its package could not be installed. With the network there: apt-get install python3-venv"
    fi
}

# Installs the package if it has changed, and the extras if they are new or their requirements have changed.
install_package() {
    local package requirements extra missing=""
    package="$(checksum "${package_files[@]}")"
    requirements="$(checksum setup.cfg)"
    for extra in ${1//,/ }; do
        noted "$extra" "$requirements" || missing=yes
    done
    if [ -z "$missing" ] && noted package "$package"; then
        return
    fi
    must_be_writable .venv
    echo "Installing into .venv ..." >&2
    touch .venv/unfinished
    # A copy: building leaves files beside the sources, and packs those that an earlier build has left there.
    mkdir -p .venv/source
    temporary_files_in_environment
    cp -R "${package_files[@]}" .venv/source/
    pip_install --no-build-isolation "./.venv/source[$1]"
    note package "$package"
    for extra in ${1//,/ }; do
        note "$extra" "$requirements"
    done
    rm .venv/unfinished
}

# pip does not clear them away if it is killed.
temporary_files_in_environment() {
    mkdir -p .venv/tmp
    export TMPDIR="$PWD/.venv/tmp"
}

pip_install() {
    local status=0
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        .venv/bin/python -m pip install --quiet "$@" || status=$?
    rm -rf .venv/tmp .venv/source
    if [ "$status" != 0 ]; then
        # pip has taken back what it had begun.
        rm -f .venv/unfinished
        fail "pip could not install what is needed; what it says stands above. Is the network there?"
    fi
}

# Names and contents, as one number.
checksum() {
    find "$@" -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
}

# What is installed, by name: the package, and each extra.
noted() {
    [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$2" ]
}

note() {
    echo "$2" >".venv/installed-$1"
}

must_be_writable() {
    if [ ! -w "$1" ]; then
        fail "$(realpath "$1") is not writable for $(id -un), and must be: the environment .venv is kept there."
    fi
}

fail() {
    echo "$*" >&2
    exit 1
}
