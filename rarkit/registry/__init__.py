"""The registry: the base class of parts, the hooks through which plugins add them, and the loader."""
