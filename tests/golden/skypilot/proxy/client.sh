# Written by haversack render skypilot.
# Read it into the shell of each client:  . client.sh
export DO_NOT_TRACK=1
export SCARF_NO_ANALYTICS=1
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
