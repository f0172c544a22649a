"""What stages and the Python interface share: images to measures, measures to comparisons."""
