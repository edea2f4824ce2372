# Sourced by the scripts beside it, in the project's root: a virtual environment with what they need.

# Makes .venv if there is none and installs the package with the extras named.
prepare_environment() {
    if [ ! -x .venv/bin/pip ]; then
        rm -rf .venv
        if ! python3 -m venv .venv; then
            rm -rf .venv
            # Debian and Ubuntu keep the module that makes environments in a package of its own.
            if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
                apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null && python3 -m venv .venv
            else
                echo "Python cannot make a virtual environment. Try: sudo apt-get install python3-venv" >&2
                return 1
            fi
        fi
    fi
    # What an earlier build has left would find its way into this one.
    rm -rf build ./*.egg-info
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/pip install --quiet --upgrade --upgrade-strategy only-if-needed ".[$1]"
    # pip leaves a package alone whose version has not changed; the sources may have.
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/pip install --quiet --force-reinstall --no-deps .
    rm -rf build ./*.egg-info
}
