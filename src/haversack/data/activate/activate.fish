# Made by haversack for fish.  Source it; `deactivate` undoes it.

if set -q _haversack_prefix
    deactivate
end

set -g _haversack_prefix @HOME@
# A copy of the environment finds itself.
set -l _haversack_found (builtin realpath -s (dirname (status filename))/.. 2>/dev/null)
if test -d "$_haversack_found/conda-meta"
    set -g _haversack_prefix $_haversack_found
end

# Set a variable, and remember what it was.
function _haversack_set
    set -e _haversack_old_$argv[1]
    if set -q $argv[1]
        set -g _haversack_old_$argv[1] $$argv[1]
    end
    set -gx $argv[1] $argv[2..-1]
end

function deactivate
    set -l scripts $_haversack_prefix/etc/conda/deactivate.d/*.fish
    for script in $scripts[-1..1]
        source $script
    end
    for name in @NAMES@
        set -l old _haversack_old_$name
        set -e $name
        if set -q $old
            set -gx $name $$old
            set -e $old
        end
    end
    if functions -q _haversack_fish_prompt
        functions -e fish_prompt
        functions -c _haversack_fish_prompt fish_prompt
        functions -e _haversack_fish_prompt
    end
    set -e _haversack_prefix
    functions -e _haversack_set deactivate
end

_haversack_set PATH $_haversack_prefix/@PROGRAMS@ $PATH
_haversack_set CONDA_PREFIX $_haversack_prefix
_haversack_set CONDA_DEFAULT_ENV $_haversack_prefix
_haversack_set CONDA_PROMPT_MODIFIER @PROMPT@
set -q CONDA_SHLVL; or set -l CONDA_SHLVL_NOW 1
_haversack_set CONDA_SHLVL $CONDA_SHLVL $CONDA_SHLVL_NOW
@VARIABLES@
if not set -q VIRTUAL_ENV_DISABLE_PROMPT; and functions -q fish_prompt
    functions -c fish_prompt _haversack_fish_prompt
    function fish_prompt
        set -l before $status
        printf '%s' $CONDA_PROMPT_MODIFIER
        # The prompt of before shows the status of the command, not of printf.
        echo "exit $before" | source
        _haversack_fish_prompt
    end
end
for _haversack_script in $_haversack_prefix/etc/conda/activate.d/*.fish
    source $_haversack_script
end
set -e _haversack_script
