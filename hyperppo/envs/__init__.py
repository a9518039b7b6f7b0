"""Tasks: vectorised environments with tensors laid out (feature, environment)."""
