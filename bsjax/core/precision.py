"""What a dtype asks of matrix products."""


def matmul_precision(dtype: str) -> str:
    """float32 means float32: accelerators otherwise round the inputs of float32 products."""
    return "highest" if dtype == "float32" else "default"
