"""Container images: names, manifests, platforms, layers, and the forms in which they lie on disk."""
