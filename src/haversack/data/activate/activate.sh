# Made by haversack for sh, bash and zsh.  Source it; `deactivate` undoes it.
# shellcheck shell=sh

if [ -n "${_haversack_prefix-}" ]; then deactivate; fi

_haversack_prefix=@HOME@
# Where the shell says which file this is, a copy of the environment finds itself.
_haversack_file=
if [ -n "${BASH_VERSION-}" ]; then
    eval '_haversack_file="${BASH_SOURCE[0]-}"'
elif [ -n "${ZSH_VERSION-}" ]; then
    eval '_haversack_file="${(%):-%x}"'
fi
case "$_haversack_file" in
    */*) _haversack_file="${_haversack_file%/*}/.." ;;
    ?*) _haversack_file=.. ;;
esac
if [ -n "$_haversack_file" ] && [ -d "$_haversack_file/conda-meta" ]; then
    _haversack_prefix="$(CDPATH='' && cd -- "$_haversack_file" && pwd)"
fi
unset _haversack_file

# Set a variable, and remember what it was.
_haversack_set() {
    eval "_haversack_had=\${$1+yes}"
    if [ -n "$_haversack_had" ]; then eval "_haversack_old_$1=\$$1"; else unset "_haversack_old_$1"; fi
    unset _haversack_had
    eval "$1=\$2"
    export "${1?}"
}

_haversack_restore() {
    eval "_haversack_had=\${_haversack_old_$1+yes}"
    if [ -n "$_haversack_had" ]; then eval "$1=\$_haversack_old_$1"; else unset "$1"; fi
    unset _haversack_had "_haversack_old_$1"
}

# In a function of its own: a script may set the positional parameters.
_haversack_one() {
    # shellcheck disable=SC1090
    . "$1"
}

# Source the scripts of a folder by name, or in the reverse order.
_haversack_source() {
    _haversack_order="$2"
    if [ -n "${ZSH_VERSION-}" ]; then eval 'set -- "$1"/*.sh(N)'; else set -- "$1"/*.sh; fi
    _haversack_at=1
    _haversack_script=
    while [ "$_haversack_at" -le "$#" ]; do
        _haversack_n="$_haversack_at"
        if [ "$_haversack_order" = reverse ]; then _haversack_n=$(($# + 1 - _haversack_at)); fi
        eval "_haversack_script=\${$_haversack_n}"
        if [ -f "$_haversack_script" ]; then _haversack_one "$_haversack_script"; fi
        _haversack_at=$((_haversack_at + 1))
    done
    unset _haversack_order _haversack_at _haversack_n _haversack_script
}

deactivate() {
    _haversack_source "$_haversack_prefix/etc/conda/deactivate.d" reverse
    # shellcheck disable=SC2043
    for _haversack_name in @NAMES@; do _haversack_restore "$_haversack_name"; done
    if [ -n "${_haversack_ps1+yes}" ]; then PS1="$_haversack_ps1"; fi
    unset _haversack_name _haversack_ps1 _haversack_prefix
    unset -f _haversack_set _haversack_restore _haversack_one _haversack_source deactivate
    hash -r 2>/dev/null
}

_haversack_set PATH "$_haversack_prefix/@PROGRAMS@${PATH:+:$PATH}"
_haversack_set CONDA_PREFIX "$_haversack_prefix"
_haversack_set CONDA_DEFAULT_ENV "$_haversack_prefix"
_haversack_set CONDA_PROMPT_MODIFIER @PROMPT@
_haversack_set CONDA_SHLVL "${CONDA_SHLVL:-1}"
@VARIABLES@
if [ -n "${PS1-}" ] && [ -z "${VIRTUAL_ENV_DISABLE_PROMPT-}" ]; then
    _haversack_ps1="$PS1"
    PS1="$CONDA_PROMPT_MODIFIER$PS1"
fi
hash -r 2>/dev/null
_haversack_source "$_haversack_prefix/etc/conda/activate.d" forward
