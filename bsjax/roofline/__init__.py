"""What a compiled program takes: arithmetic, memory, exchange, and the least time on a chip."""
