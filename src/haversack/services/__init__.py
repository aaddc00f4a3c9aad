"""Services of a control machine, described once: as units of systemd, and as modules of NixOS.

A description (:mod:`haversack.services.description`) is data.  :mod:`haversack.services.text` makes the files of any
systemd machine of it for given options, :mod:`haversack.services.nix` the module that makes the same inside NixOS.
"""
