"""What stages leave in a workdir: the only readers and writers of measures and comparisons."""
