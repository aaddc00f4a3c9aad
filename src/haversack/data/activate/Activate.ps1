# Made by haversack for PowerShell.  Dot-source it; `deactivate` undoes it.

if (Test-Path Variable:global:_HaversackPrefix) { deactivate }

$global:_HaversackPrefix = @HOME@
# A copy of the environment finds itself.
$found = if ($PSScriptRoot) { Split-Path -Parent $PSScriptRoot } else { '' }
if ($found -and (Test-Path (Join-Path $found 'conda-meta'))) { $global:_HaversackPrefix = $found }
$global:_HaversackOld = @{}

# Set a variable, and remember what it was.
function global:_HaversackSet([string]$Name, [string]$Value) {
    $global:_HaversackOld[$Name] = if (Test-Path "Env:$Name") { (Get-Item "Env:$Name").Value } else { $null }
    Set-Item -Path "Env:$Name" -Value $Value
}

function global:deactivate {
    $folder = Join-Path $global:_HaversackPrefix 'etc/conda/deactivate.d'
    if (Test-Path $folder) {
        Get-ChildItem -Path $folder -Filter '*.ps1' | Sort-Object -Property Name -Descending |
            ForEach-Object { . $_.FullName }
    }
    foreach ($name in @($global:_HaversackOld.Keys)) {
        $old = $global:_HaversackOld[$name]
        if ($null -eq $old) { Remove-Item -Path "Env:$name" -ErrorAction SilentlyContinue }
        else { Set-Item -Path "Env:$name" -Value $old }
    }
    if (Test-Path Function:global:_HaversackPrompt) {
        Copy-Item -Path Function:_HaversackPrompt -Destination Function:prompt
        Remove-Item -Path Function:_HaversackPrompt
    }
    Remove-Variable -Name _HaversackPrefix, _HaversackOld -Scope Global
    Remove-Item -Path Function:_HaversackSet, Function:deactivate
}

$folders = @(@FOLDERS@) | ForEach-Object { if ($_) { Join-Path $global:_HaversackPrefix $_ } else { $global:_HaversackPrefix } }
_HaversackSet 'PATH' ((@($folders) + @($env:PATH)) -join [IO.Path]::PathSeparator)
_HaversackSet 'CONDA_PREFIX' $global:_HaversackPrefix
_HaversackSet 'CONDA_DEFAULT_ENV' $global:_HaversackPrefix
_HaversackSet 'CONDA_PROMPT_MODIFIER' @PROMPT@
_HaversackSet 'CONDA_SHLVL' $(if ($env:CONDA_SHLVL) { $env:CONDA_SHLVL } else { '1' })
@VARIABLES@
if (-not $env:VIRTUAL_ENV_DISABLE_PROMPT) {
    function global:_HaversackPrompt { '' }
    Copy-Item -Path Function:prompt -Destination Function:_HaversackPrompt
    function global:prompt { "$env:CONDA_PROMPT_MODIFIER$(_HaversackPrompt)" }
}
$scripts = Join-Path $global:_HaversackPrefix 'etc/conda/activate.d'
if (Test-Path $scripts) {
    Get-ChildItem -Path $scripts -Filter '*.ps1' | Sort-Object -Property Name | ForEach-Object { . $_.FullName }
}
