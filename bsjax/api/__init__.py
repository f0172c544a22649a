"""The interface for users of the library; `bsjax` itself hands out what stands here."""
