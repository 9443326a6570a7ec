"""New plugins from templates, one for each kind of part."""
