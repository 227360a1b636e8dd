"""What `entitymill` can be asked for: options in, an exit code out. One module a command, `common` for all of them."""
