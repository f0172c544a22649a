"""What a program takes: FLOPs, bytes accessed, communication, and the least time on a chip."""
