"""The command line, a module per noun; ``flows.__main__`` assembles it."""
