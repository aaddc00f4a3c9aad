"""Working folders and git repositories: what of them crosses, and how they are laid inside."""
