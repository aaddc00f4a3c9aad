# Made by haversack: what the alias `deactivate` of activate.csh sources.

_haversack_scripts deactivate.d
set _haversack_reverse = ()
foreach _haversack_script ($_haversack_list:q)
    set _haversack_reverse = ("$_haversack_script" $_haversack_reverse:q)
end
foreach _haversack_script ($_haversack_reverse:q)
    if (-f "$_haversack_script") source "$_haversack_script"
end
unset _haversack_list _haversack_reverse _haversack_script
@RESTORE@
if ($?_haversack_prompt) then
    set prompt = "$_haversack_prompt:q"
    unset _haversack_prompt
endif
unset _haversack_prefix
unalias _haversack_scripts
unalias deactivate
rehash
