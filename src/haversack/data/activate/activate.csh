# Made by haversack for csh and tcsh.  Source it; `deactivate` undoes it.  It holds the path of its environment:
# csh does not say which file it reads.

if ($?_haversack_prefix) then
    deactivate
endif

set _haversack_prefix = @HOME@
alias _haversack_scripts 'set _haversack_nonomatch = $?nonomatch; set nonomatch; set _haversack_list = ("$_haversack_prefix"/etc/conda/\!:1/*.csh); if (! $_haversack_nonomatch) unset nonomatch; unset _haversack_nonomatch'

@SAVE@
alias deactivate 'source "$_haversack_prefix"/@PROGRAMS@/@DEACTIVATE@'

setenv PATH "${_haversack_prefix}/@PROGRAMS@:${PATH}"
setenv CONDA_PREFIX "$_haversack_prefix"
setenv CONDA_DEFAULT_ENV "$_haversack_prefix"
setenv CONDA_PROMPT_MODIFIER @PROMPT@
if (! $?CONDA_SHLVL) setenv CONDA_SHLVL 1
@VARIABLES@
if ($?prompt && ! $?VIRTUAL_ENV_DISABLE_PROMPT) then
    set _haversack_prompt = "$prompt:q"
    set prompt = "${CONDA_PROMPT_MODIFIER}$prompt:q"
endif
rehash
_haversack_scripts activate.d
foreach _haversack_script ($_haversack_list:q)
    if (-f "$_haversack_script") source "$_haversack_script"
end
unset _haversack_list _haversack_script
