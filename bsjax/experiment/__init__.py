"""From a config to the objects that stages work with, and what is checked of them before work."""
