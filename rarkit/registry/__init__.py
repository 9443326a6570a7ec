"""The registry: what a part is, the hooks by which plugins bring parts, and the loader that finds them."""
