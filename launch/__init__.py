"""Scripts and specifications that start bsjax elsewhere; `bsjax launch` lists them."""
