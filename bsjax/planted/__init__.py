"""The scenes world's models: how its encoder and its generator, gaps planted, are trained."""
