"""What platforms of a cluster share: environments on a file system that every node has."""
