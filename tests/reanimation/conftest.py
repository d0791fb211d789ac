from tiny_svd import dragnuwa, folders, stock  # noqa: F401
