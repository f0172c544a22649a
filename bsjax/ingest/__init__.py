"""From a table of addresses and captions to captioned images on disk, every loss accounted for.

`candidates` draws rows, `fetch` asks the network, `judge` looks at what came, `book` keeps what is
known across a kill and writes the shards.
"""
