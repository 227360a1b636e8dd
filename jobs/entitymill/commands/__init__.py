"""What `entitymill` can be asked for: options in, an exit code out. One module a command, `command` for all of them."""
