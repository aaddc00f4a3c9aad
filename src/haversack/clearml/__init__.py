"""ClearML: what its sessions, agents and charts want to be told, version by version; pure.

Where no specification is named, a rule was read from the sources of clearml-session 0.16.0 and 0.17.0,
clearml-agent 3.0.3, and of the public charts (docs/platforms/clearml.md says which was tried).
"""
