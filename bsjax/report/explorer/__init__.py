"""The explorer: a static folder that shows every concept, image and model in a browser."""
